"""Exported forms: as exact as the network, small, checked before they are loaded, measured and chosen by rule."""

import io
import json
import pickle
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from clinic.export.choose import Limits, choose
from clinic.export.export import ExportOrder, check_names, export
from clinic.export.measure import mean_dice, probe
from clinic.export.network import check_copy, probabilities
from clinic.export.onnx import to_int8, to_onnx
from clinic.export.prune import fine_tune, prune, recalibrate, to_input
from clinic.export.pt2 import to_pt2
from clinic.export.show import variants_section
from clinic.pack import pack
from clinic.runtime.exported import check_archive, load_exported
from clinic.runtime.model import open_model
from clinic.runtime.onnx import OnnxRuntime
from clinic.runtime.variants import Measured, Variant, Variants, read_variants
from cluster.storage import Folder
from tests.clinic.fakes import write_trial
from tests.trainables.fakes import ArraySamples, disc_data
from trainables.config import TrialConfig
from trainables.net.architecture import Architecture
from trainables.net.models import build_model, parameter_count

SMALL = Architecture(encoder="tu-test_efficientnet", decoder="unet", image_size_px=32)


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return build_model(SMALL).eval()


@pytest.fixture(scope="module")
def image_B1SS() -> np.ndarray:
    return to_input(disc_data().val.images_NHW).numpy()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tiny_shards: Path) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_trial(folder / "trial", normalisation="clahe", decoder="unet", encoder="tu-test_efficientnet")
    pack(str(folder / "trial"), str(folder / "small"), shards=str(tiny_shards))
    return folder / "small"


def test_onnx_is_as_near_to_float64_as_torch_is(network: torch.nn.Module, image_B1SS: np.ndarray):
    got = OnnxRuntime(to_onnx(network, image_B1SS), threads=1)(image_B1SS)
    exact = probabilities(network, image_B1SS, torch.float64)
    own = np.abs(probabilities(network, image_B1SS) - exact).max()
    assert np.abs(got - exact).max() <= max(2 * own, 1e-4)


def test_a_copy_that_differs_is_not_kept(network: torch.nn.Module, image_B1SS: np.ndarray):
    wrong = probabilities(network, image_B1SS)
    wrong[0, 0, 3, 4] += 0.01
    with pytest.raises(ValueError, match=r"onnx differs from the network by up to 1\.0e-02"):
        check_copy(network, wrong, image_B1SS, "onnx")


def test_int8_is_smaller_and_close(network: torch.nn.Module, image_B1SS: np.ndarray):
    plain = to_onnx(network, image_B1SS)
    small = to_int8(plain, to_input(disc_data().train.images_NHW).numpy())
    assert len(small) < len(plain)
    both = [OnnxRuntime(content, threads=1)(image_B1SS) for content in (plain, small)]
    assert np.abs(both[0] - both[1]).mean() < 0.05


def test_pt2_loads_with_torch_alone_and_gives_the_same(
    network: torch.nn.Module, image_B1SS: np.ndarray, tmp_path: Path
):
    content = to_pt2(network, image_B1SS)
    got = load_exported(content, device="cpu", threads=None)(image_B1SS[:1])
    np.testing.assert_allclose(got, probabilities(network, image_B1SS[:1]), atol=1e-6)
    (tmp_path / "model.pt2").write_bytes(content)
    code = (
        "import sys, torch; model = torch.export.load(sys.argv[1]).module()\n"
        "print(tuple(model(torch.rand(3, 1, 32, 32)).shape))\n"
        "assert not {'segmentation_models_pytorch', 'timm', 'torchvision'} & set(sys.modules), 'more than torch'"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "model.pt2")], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "(3, 1, 32, 32)", done.stderr


class _Evil:
    def __reduce__(self) -> tuple:
        return (exec, ("raise SystemExit('executed')",))


def _changed(content: bytes, change) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as archive, zipfile.ZipFile(target, "w") as other:
        for name in archive.namelist():
            data = change(name, archive.read(name))
            other.writestr(name, data)
    return target.getvalue()


def test_a_pt2_file_with_a_pickle_or_code_in_it_is_refused_unread(network: torch.nn.Module, image_B1SS: np.ndarray):
    content = to_pt2(network, image_B1SS)
    evil = pickle.dumps(_Evil())
    inputs = _changed(content, lambda name, data: evil if name.endswith("sample_inputs/model.pt") else data)
    marked = _changed(content, lambda name, data: data.replace(b'"use_pickle": false', b'"use_pickle": true'))
    evaluated = _changed(content, lambda name, data: data.replace(b"Symbol(", b"__import__('os').system("))
    with io.BytesIO(content) as buffer:
        with zipfile.ZipFile(buffer, "a") as archive:
            archive.writestr("model/data/weights/extra.pt", evil)
        added = buffer.getvalue()
    assert evaluated != content
    for bad in (inputs, marked, evaluated, added, content[: len(content) // 2], b""):
        with pytest.raises(ValueError, match=r"not loaded|damaged"):
            check_archive(bad, "pt2")
    check_archive(content, "pt2")


def test_pruning_takes_channels_out_and_leaves_a_network_that_works(network: torch.nn.Module):
    smaller = prune(network, 0.5, 32)
    assert parameter_count(smaller) < 0.5 * parameter_count(network)
    assert smaller(torch.rand(1, 1, 32, 32)).shape == (1, 1, 32, 32)
    assert parameter_count(network) == parameter_count(build_model(SMALL))


def test_new_batch_statistics_are_the_plain_mean_over_the_images(network: torch.nn.Module):
    images_NHW = disc_data(train=16).train.images_NHW
    norm = next(part for part in network.modules() if isinstance(part, torch.nn.BatchNorm2d))
    before = norm.running_mean.clone()
    fresh = next(part for part in recalibrate(network, images_NHW).modules() if isinstance(part, torch.nn.BatchNorm2d))
    seen: list[torch.Tensor] = []
    hook = norm.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].mean((0, 2, 3))))
    with torch.no_grad():
        network(to_input(images_NHW))
    hook.remove()
    torch.testing.assert_close(fresh.running_mean, seen[0])
    assert torch.equal(norm.running_mean, before)
    assert fresh.momentum == norm.momentum


def test_fine_tuning_gives_the_best_epoch(network: torch.nn.Module):
    scores = iter([0.3, 0.9, 0.5])
    judged: list[torch.nn.Module] = []

    def val_dice(candidate: torch.nn.Module) -> float:
        judged.append(candidate)
        return next(scores)

    config = TrialConfig(encoder=SMALL.encoder, decoder=SMALL.decoder, batch_size=4, precision="fp32")
    lines: list[str] = []
    start = prune(network, 0.3, 32)
    best = fine_tune(start, disc_data(), config, epochs=3, val_dice=val_dice, tell=lines.append)
    assert best is judged[1]
    assert lines[-1] == "fine-tuning, epoch 3 of 3: val Dice 0.5000"


def test_dice_is_hard_per_image_and_averaged():
    masks_NHW = np.zeros((3, 4, 4), np.uint8)
    masks_NHW[0, :2] = 1
    masks_NHW[1, 0, 0] = 1
    images_NHW = np.zeros((3, 4, 4), np.uint8)
    images_NHW[0, 1:3] = 255
    samples = ArraySamples(images_NHW, masks_NHW)
    assert mean_dice(lambda image: image, samples, 0.5) == pytest.approx((0.5 + 0 + 1) / 3)


def measured(name: str, *, p50: float, mb: float, dice: float) -> Variant:
    found = Measured(size_mb=mb, p50_ms=p50, p95_ms=1.2 * p50, val_dice=dice, test_dice=1 - dice)
    return Variant(name=name, kind="onnx", measured=found)


FOUR = [
    measured("weights", p50=100, mb=140, dice=0.93),
    measured("onnx", p50=70, mb=140, dice=0.93),
    measured("int8", p50=30, mb=36, dice=0.925),
    measured("pruned50-int8", p50=10, mb=9, dice=0.90),
]


@pytest.mark.parametrize(
    ("limits", "name"),
    [
        (Limits(), "int8"),
        (Limits(max_latency_ms=20), "pruned50-int8"),
        (Limits(max_mb=10), "pruned50-int8"),
        (Limits(min_dice=0.928), "onnx"),
        (Limits(max_latency_ms=90, min_dice=0.93), "onnx"),
    ],
)
def test_the_fastest_of_the_good_ones_within_the_limits_is_chosen(limits: Limits, name: str):
    assert choose(FOUR, limits).name == name


def test_where_none_keeps_the_limits_each_says_why():
    with pytest.raises(RuntimeError, match=r"(?s)weights: p95 120 ms > 12.*pruned50-int8: val Dice 0\.9 < 0\.92"):
        choose(FOUR, Limits(max_latency_ms=12, min_dice=0.92))


@pytest.mark.parametrize("names", [[], ["int4"], ["pruned5"], ["onnx", "pruned100"]])
def test_unknown_variants_are_refused(names: list[str]):
    with pytest.raises(ValueError, match="there are onnx, int8"):
        check_names(names)


def test_shards_of_other_data_are_refused(model: Path, tiny_shards: Path, tmp_path: Path):
    info = json.loads((model / "model.json").read_text())
    info["data"]["fingerprint"] = "f" * 64
    (tmp_path / "model.json").write_text(json.dumps(info))
    with pytest.raises(ValueError, match=r"is not what small was trained on.*ffffffffffffffff"):
        export(ExportOrder(model=str(tmp_path), shards=str(tiny_shards), variants=("onnx",)), print)


@pytest.mark.soak
@pytest.mark.slow
def test_an_export_writes_measures_and_chooses_and_predict_runs_every_variant(
    model: Path, tiny_shards: Path, tmp_path: Path
):
    wanted = ("onnx", "int8", "pt2", "pruned50", "pruned50-int8")
    lines: list[str] = []
    done = export(ExportOrder(model=str(model), shards=str(tiny_shards), variants=wanted, epochs=1), lines.append)
    assert {"weights", *wanted} <= {variant.name for variant in done.variants}
    assert read_variants(Folder(model)) == done
    assert f"| {done.chosen} * |" in (model / "MODEL_CARD.md").read_text()
    image_SS = disc_data().val.images_NHW[0]
    plain = open_model(str(model), variant="weights").probability(image_SS)
    for variant in done.variants:
        assert variant.measured is not None and variant.measured.p50_ms and variant.measured.peak_memory_mb
        got = open_model(str(model), variant=variant.name).probability(image_SS)
        assert got.shape == (32, 32) and got.dtype == np.float32
        if variant.name in ("onnx", "pt2"):
            np.testing.assert_allclose(got, plain, atol=1e-4)
    copied = Path(shutil.copytree(model, tmp_path / "copied"))
    damaged = copied / "variants" / "int8.onnx"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match="is damaged"):
        open_model(str(copied), variant="int8")


@pytest.mark.slow
def test_a_model_in_onnx_is_used_without_torch(model: Path, tiny_shards: Path):
    export(ExportOrder(model=str(model), shards=str(tiny_shards), variants=("onnx",)), lambda line: None)
    code = (
        "import sys\nfrom clinic.predict.predictor import Predictor, Order\n"
        "Predictor(Order(models=(sys.argv[1],), out='.', variant='onnx'))\n"
        "assert not {'torch', 'ray', 'timm'} & set(sys.modules), sorted({'torch', 'ray', 'timm'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(model)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_variant_that_cannot_be_measured_says_why(model: Path):
    with pytest.raises(RuntimeError, match="'nothing' could not be measured"):
        probe(str(model), "nothing", threads=1)


def test_the_table_marks_the_chosen_variant():
    section = variants_section(Variants(chosen="int8", machine="a machine, 1 thread", variants=tuple(FOUR)))
    assert "| int8 * | 36.0 | 30.0 | 36.0 |  | 0.9250 | 0.0750 |" in section
