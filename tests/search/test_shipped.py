"""python -m pytest tests/search/test_shipped.py: every network that a shipped study names can be built and trained."""

import pytest
import torch

from search.settings.config import StudyConfig, load_study_config
from search.settings.reference import ROOT
from search.settings.space import Space
from trainables.config import TrialConfig
from trainables.net.architecture import Architecture
from trainables.net.models import build_model, check_model, meta_model, parameter_count

WIDE, NANO = (load_study_config(ROOT / "configs" / f"{name}.yaml") for name in ("wide", "nano"))
SHAPE = ("encoder", "decoder", "decoder_width", "decoder_attention", "encoder_depth")
FAMILIES = ("convnext", "swin", "vit", "efficientnet", "mobilenetv4")


def size_px(study: StudyConfig) -> int:
    assert study.data.build is not None
    return study.data.build.size_px


def architectures(study: StudyConfig) -> list[Architecture]:
    """Every network that the study can make."""
    whole = study.search_space
    space = Space({name: whole.axes[name] for name in SHAPE if name in whole.axes}, whole.fixed, whole.epochs)
    found = [Architecture.of(space.to_config(params), size_px(study)) for params in space.cells()]
    return list(dict.fromkeys(found))


@pytest.mark.parametrize("encoder", NANO.search_space.encoders())
def test_every_network_of_nano_is_below_two_million_parameters(encoder: str) -> None:
    networks = [a for a in architectures(NANO) if a.encoder == encoder]
    assert len(networks) == 10
    for architecture in networks:
        assert check_model(architecture) == []
        assert parameter_count(meta_model(architecture)) < 2_000_000, architecture


def test_wide_names_the_families_of_the_papers_future_work() -> None:
    assert all(any(family in encoder for encoder in WIDE.search_space.encoders()) for family in FAMILIES)


def test_a_plain_vision_transformer_gets_the_decoder_that_it_goes_with() -> None:
    decoders = {a.decoder for a in architectures(WIDE) if "vit_" in a.encoder}
    assert decoders == {"dpt"}
    assert "dpt" not in {a.decoder for a in architectures(WIDE) if "vit_" not in a.encoder}


@pytest.mark.slow
@pytest.mark.parametrize("encoder", WIDE.search_space.encoders())
def test_every_network_of_wide_gives_masks_of_the_images_size(encoder: str) -> None:
    for architecture in (a for a in architectures(WIDE) if a.encoder == encoder):
        assert check_model(architecture) == [], architecture


@pytest.mark.slow
@pytest.mark.parametrize(
    ("study", "encoder"), [(study, encoder) for study in (WIDE, NANO) for encoder in study.search_space.encoders()]
)
def test_every_encoder_of_a_shipped_study_trains_a_step(study: StudyConfig, encoder: str) -> None:
    torch.manual_seed(0)
    architecture = next(a for a in architectures(study) if a.encoder == encoder)
    model = build_model(architecture).train()
    image_B1HW = torch.rand(2, 1, size_px(study), size_px(study))
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4)
    losses = []
    for _ in range(2):
        optimiser.zero_grad()
        logits_B1HW = model(image_B1HW)
        assert logits_B1HW.shape == image_B1HW.shape
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits_B1HW, (image_B1HW > 0.5).float())
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[0] != losses[1]
    used = [p for p in model.parameters() if p.grad is not None]
    assert all(torch.isfinite(p.grad).all() for p in used if p.grad is not None)
    assert len(used) == sum(p.requires_grad for p in model.parameters())


def test_the_settings_of_wide_are_the_papers_where_they_are_not_named() -> None:
    config = WIDE.search_space.to_config(next(iter(WIDE.search_space.baselines(WIDE.search_space.encoders()[:1]))))
    unnamed = set(TrialConfig.model_fields) - set(WIDE.space) - set(WIDE.fixed) - {"epochs", "seed", "iou_weight"}
    defaults = TrialConfig()
    assert {name for name in unnamed if getattr(config, name) != getattr(defaults, name)} == set()
