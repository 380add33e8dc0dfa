"""python -m pytest tests/trainables/test_models.py: the paper's five to the last parameter, one contract for all."""

from pathlib import Path

import pytest
import torch
from torch import nn

from trainables import config
from trainables.config import DECODERS, DECODERS_WITH_NORM, PAPER_ENCODERS, PAPER_TO_SMP
from trainables.net import decoders, models
from trainables.net.architecture import Architecture
from trainables.net.models import (
    build_model,
    check_model,
    meta_model,
    parameter_count,
    trains_on_one_image,
    unused_parameters,
)

PAPER = {
    # trainable, and with batch-norm statistics (Keras' "total")
    "seresnet50": (35_052_097, 35_107_201),
    "inceptionv3": (29_896_689, 29_933_105),
    "densenet121": (12_059_345, 12_144_977),
    "mobilenet": (8_312_465, 8_336_337),
    "vgg19": (29_057_937, 29_061_969),
}
SKIPS = {
    "seresnet50": (64, 256, 512, 1024, 2048),
    "inceptionv3": (64, 192, 288, 768, 2048),
    "densenet121": (64, 128, 256, 512, 1024),
    "mobilenet": (64, 128, 256, 512, 1024),
    "vgg19": (128, 256, 512, 512, 512),
}
SMALL = "tu-test_efficientnet"
QUICK_NORMS = (("unet", "layernorm"), ("linknet", "layernorm"), ("unet", "instancenorm"), ("upernet", "instancenorm"))


def paper_unet(encoder: str) -> nn.Module:
    return meta_model(Architecture(encoder=encoder, decoder="unet", image_size_px=224))


def blank(images: int, size_px: int) -> torch.Tensor:
    return torch.zeros(images, 1, size_px, size_px, device="meta")


@pytest.mark.parametrize("encoder", PAPER)
def test_trainable_parameters_are_the_papers(encoder: str) -> None:
    assert parameter_count(paper_unet(encoder)) == PAPER[encoder][0]


@pytest.mark.parametrize("encoder", PAPER)
def test_batch_norm_statistics_are_as_many_as_keras_has(encoder: str) -> None:
    model = paper_unet(encoder)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    statistics = sum(norm.running_mean.numel() + norm.running_var.numel() for norm in norms)
    assert parameter_count(model) + statistics == PAPER[encoder][1]


@pytest.mark.parametrize("encoder", SKIPS)
def test_skips_have_the_channels_and_sizes_of_keras(encoder: str) -> None:
    features = paper_unet(encoder).net.encoder(torch.zeros(1, 3, 224, 224, device="meta"))[1:]
    shapes = [tuple(feature.shape[1:]) for feature in features]
    assert shapes == [(c, s, s) for c, s in zip(SKIPS[encoder], (112, 56, 28, 14, 7), strict=True)]


@pytest.mark.parametrize("encoder", PAPER)
def test_the_decoder_normalises_as_keras_does(encoder: str) -> None:
    norms = [m for m in paper_unet(encoder).net.decoder.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.01)}


def test_inception_keeps_its_batch_norm_scale_without_training_it() -> None:
    encoder = paper_unet("inceptionv3").net.encoder
    assert "Conv2d_1a_3x3.bn.weight" in encoder.state_dict()
    assert not any(name.endswith("bn.weight") for name, _ in encoder.named_parameters())


def test_densenet_ends_with_a_relu() -> None:
    model = build_model(Architecture(encoder="densenet121", decoder="unet")).eval()
    with torch.no_grad():
        last = model.net.encoder(torch.rand(1, 3, 32, 32))[-1]
    assert last.min() == 0


def assert_contract(model: nn.Module, size_px: int, tmp_path: Path) -> None:
    """Forward, backward through every parameter in use, and the same outputs after saving and loading."""
    image_B1HW = torch.rand(2, 1, size_px, size_px)
    logits_B1HW = model.train()(image_B1HW)
    assert logits_B1HW.shape == (2, 1, size_px, size_px)
    logits_B1HW.square().mean().backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())
    assert sum(p.grad is not None for p in model.parameters()) > 10
    model.eval()
    with torch.no_grad():
        before = model(image_B1HW)
        assert torch.allclose(model(image_B1HW.expand(-1, 3, -1, -1)), before)  # grey is three equal channels
        torch.save(model.state_dict(), tmp_path / "model.pt")
        for parameter in model.parameters():
            parameter.zero_()
        model.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
        assert torch.equal(model(image_B1HW), before)


@pytest.mark.slow
@pytest.mark.parametrize("encoder", PAPER_ENCODERS)
def test_the_papers_models_train(encoder: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    assert_contract(build_model(Architecture(encoder=encoder, decoder="unet")), 32, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("decoder", [d for d in DECODERS if d not in ("dpt", "pan")])
def test_every_decoder_trains(decoder: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    assert_contract(build_model(Architecture(encoder=SMALL, decoder=decoder, image_size_px=64)), 64, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("decoder", "encoder", "size_px"), [("dpt", "tu-test_vit", 64), ("pan", SMALL, 128)])
def test_the_other_decoders_train(decoder: str, encoder: str, size_px: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    architecture = Architecture(encoder=encoder, decoder=decoder, image_size_px=size_px)
    assert_contract(build_model(architecture), size_px, tmp_path)


NORMS = [
    pytest.param(decoder, norm, marks=() if (decoder, norm) in QUICK_NORMS else pytest.mark.slow)
    for decoder in DECODERS_WITH_NORM
    for norm in decoders.NORM
]


@pytest.mark.parametrize(("decoder", "norm"), NORMS)
def test_every_normalisation_works_in_every_decoder_that_has_the_choice(decoder: str, norm: str) -> None:
    mistakes = check_model(Architecture(encoder=SMALL, decoder=decoder, decoder_norm=norm, image_size_px=128))
    if (decoder, norm) == ("upernet", "instancenorm"):
        assert "more than 1 spatial element" in mistakes[0]  # it pools to a single pixel
    else:
        assert mistakes == []


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["resnet18", "mit_b0", "tu-swin_tiny_patch4_window7_224", "tu-convnext_atto"])
def test_encoders_of_smp_and_timm_go_by_name(encoder: str) -> None:
    assert check_model(Architecture(encoder=encoder, decoder="unet", image_size_px=64)) == []


WITHOUT_DILATION = {"deeplabv3", "deeplabv3plus", "pan"}


@pytest.mark.parametrize("encoder", ["vgg19", pytest.param("mobilenet", marks=pytest.mark.slow)])
@pytest.mark.parametrize("decoder", DECODERS)
def test_the_papers_encoders_go_with_a_decoder_or_it_is_said_why_not(decoder: str, encoder: str) -> None:
    mistakes = check_model(Architecture(encoder=encoder, decoder=decoder, image_size_px=128))
    if decoder in WITHOUT_DILATION and encoder == "vgg19":
        assert "do not support dilated mode" in mistakes[0]
    elif decoder == "dpt" and encoder == "vgg19":
        assert "Only Timm encoders are supported for DPT" in mistakes[0]
    else:
        assert mistakes == []


def test_names_that_do_not_exist_get_close_ones_and_all_mistakes_at_once() -> None:
    first, second, third = check_model(Architecture(encoder="mobilnet", decoder="unett", image_size_px=200))
    assert "'unett' is unknown; use one of unet, unetplusplus" in first
    assert "did you mean mobilenet" in second
    assert "200 px is not a multiple of 32; the nearest that work are 192 and 224" in third
    with pytest.raises(ValueError, match=r"unett.*mobilnet.*200 px"):
        build_model(Architecture(encoder="mobilnet", decoder="unett", image_size_px=200))


def test_a_timm_name_without_its_prefix_is_told_so() -> None:
    assert "tu-convnext_tiny" in check_model(Architecture(encoder="convnext_tiny", decoder="unet"))[0]


def test_a_plain_vision_transformer_is_sent_to_dpt() -> None:
    assert "go with decoder dpt" in check_model(Architecture(encoder="tu-vit_tiny_patch16_224", decoder="unet"))[0]


def test_a_size_too_small_for_a_decoder_is_found_without_training() -> None:
    (mistake,) = check_model(Architecture(encoder="mobilenet", decoder="pan", image_size_px=64))
    assert "at 64 px does not work" in mistake


def test_checking_allocates_no_weights() -> None:
    assert all(parameter.is_meta for parameter in paper_unet("vgg19").parameters())


def test_stages_that_no_output_depends_on_are_left_out_and_the_output_stays() -> None:
    architecture = Architecture(encoder="vgg19", decoder="pspnet", image_size_px=64)
    torch.manual_seed(0)
    whole = models._build(architecture, None).eval()
    torch.manual_seed(0)
    lean = build_model(architecture).eval()
    assert parameter_count(lean) < 0.6 * parameter_count(whole)
    assert unused_parameters(architecture) == ()
    with torch.no_grad():
        assert torch.equal(lean(torch.ones(1, 1, 64, 64)), whole(torch.ones(1, 1, 64, 64)))


@pytest.mark.parametrize("encoder", [SMALL, "vgg19", pytest.param("densenet121", marks=pytest.mark.slow)])
@pytest.mark.parametrize("decoder", config.DECODERS_WITH_DEPTH)
def test_a_shallower_network_is_smaller_and_gives_masks_of_the_images_size(encoder: str, decoder: str) -> None:
    counts = []
    for depth in (3, 4, 5):
        architecture = Architecture(encoder=encoder, decoder=decoder, encoder_depth=depth, image_size_px=64)
        assert check_model(architecture) == []
        counts.append(parameter_count(meta_model(architecture)))
    assert counts[0] < counts[1] < counts[2]


def test_a_shallow_u_net_keeps_the_channels_of_each_resolution() -> None:
    shallow = meta_model(Architecture(encoder="vgg19", encoder_depth=3, image_size_px=64))
    convolutions = [block.conv2[0] for block in shallow.net.decoder.blocks]
    assert [convolution.out_channels for convolution in convolutions] == [64, 32, 16]


@pytest.mark.parametrize("decoder", DECODERS)
def test_width_scales_every_decoder_that_has_one(decoder: str) -> None:
    encoder = "tu-test_vit" if decoder == "dpt" else SMALL
    counts = []
    for width in (0.25, 1.0, 1.75):
        architecture = Architecture(encoder=encoder, decoder=decoder, decoder_width=width, image_size_px=128)
        assert check_model(architecture) == []
        counts.append(parameter_count(meta_model(architecture)))
    if decoder in config.DECODERS_WITHOUT_WIDTH:
        assert len(set(counts)) == 1
    else:
        assert counts[0] < counts[1] < counts[2]


@pytest.mark.filterwarnings("error:Initializing zero-element tensors")
@pytest.mark.parametrize("decoder", config.ATTENTIVE_DECODERS)
def test_attention_goes_into_the_decoders_that_have_a_place_for_it(decoder: str) -> None:
    shape = {"encoder": SMALL, "decoder": decoder, "image_size_px": 64}
    attentive = meta_model(Architecture(**shape, decoder_attention="scse"))
    assert any(type(module).__name__ == "SCSEModule" for module in attentive.modules())
    assert parameter_count(attentive) > parameter_count(meta_model(Architecture(**shape)))


@pytest.mark.parametrize("decoder", [d for d in DECODERS if d not in config.ATTENTIVE_DECODERS])
def test_attention_is_of_no_effect_elsewhere(decoder: str) -> None:
    shape = {"encoder": "tu-test_vit" if decoder == "dpt" else SMALL, "decoder": decoder, "image_size_px": 128}
    attentive, plain = (meta_model(Architecture(**shape, decoder_attention=a)) for a in ("scse", "none"))
    assert parameter_count(attentive) == parameter_count(plain)


def test_batch_norm_over_one_pixel_needs_two_images() -> None:
    assert not trains_on_one_image(Architecture(encoder="mobilenet", image_size_px=32))
    assert trains_on_one_image(Architecture(encoder="mobilenet", image_size_px=64))
    assert not trains_on_one_image(Architecture(encoder=SMALL, decoder="deeplabv3plus", image_size_px=64))
    assert trains_on_one_image(Architecture(encoder="vgg19", decoder_norm="identity", image_size_px=32))


def test_images_are_normalised_as_the_encoders_weights_expect() -> None:
    half = ((0.5,) * 3, (0.5,) * 3)
    assert models.input_normalisation("inceptionv3") == half
    assert models.input_normalisation("mobilenet") == half
    for encoder in ("seresnet50", "densenet121", "vgg19", "resnet18"):
        assert models.input_normalisation(encoder) == models.IMAGENET
    seen = []
    model = models.Segmenter(nn.Identity(), mean=(0.5, 0.4, 0.0), std=(0.5, 0.1, 1.0))
    seen = model(torch.full((1, 1, 1, 1), 0.6)).flatten().tolist()
    assert seen == pytest.approx([0.2, 2.0, 0.6])


def test_every_name_of_the_paper_and_of_smp_is_offered() -> None:
    names = models.encoder_names()
    assert names[:5] == list(PAPER_TO_SMP)
    assert {"resnet18", "tu-convnext_tiny", "vgg19_bn"} <= set(names)
    assert tuple(models.decoder_names()) == DECODERS
