"""python -m pytest tests/trainables/test_precision.py: which number format `auto` means, and that it is found once."""

import json
from pathlib import Path

import pytest
import torch

from tests.trainables.fakes import disc_data, small_config
from trainables.step import precision
from trainables.step.precision import best_precision, check_precision
from trainables.trial import TrialSession

CPU = torch.device("cpu")


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, float]:
    """A CPU that has bf16 and takes these seconds for a step; `times` counts how often it was asked."""
    answer = {"fp32": 2.0, "bf16": 1.0, "times": 0.0}

    def measure() -> dict[str, float]:
        answer["times"] += 1
        return {name: answer[name] for name in ("fp32", "bf16")}

    monkeypatch.setenv("MAMMOSEARCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(precision, "_cpu_has_bf16", lambda: True)
    monkeypatch.setattr(precision, "_step_seconds", measure)
    return answer


@pytest.mark.parametrize(("bf16_s", "expected"), [(1.0, "bf16"), (1.9, "fp32"), (3.6, "fp32")])
def test_a_cpu_with_both_takes_the_faster_and_fp32_in_a_tie(measured: dict, bf16_s: float, expected: str) -> None:
    measured["bf16"] = bf16_s
    assert best_precision(CPU) == expected


def test_a_machine_is_measured_once_for_all_its_processes(measured: dict) -> None:
    assert best_precision(CPU) == "bf16"
    measured["bf16"] = 9.0  # a later process that would find something else
    assert best_precision(CPU) == "bf16"
    assert measured["times"] == 1


@pytest.mark.parametrize("content", ["", "{", "[]", '{"step_s": {"fp32": 1}}', '{"step_s": {"fp32": "x", "bf16": 1}}'])
def test_a_damaged_measurement_is_made_again(measured: dict, content: str, tmp_path: Path) -> None:
    best_precision(CPU)
    (file,) = (tmp_path / "cache" / "precision").glob("*.json")
    file.write_text(content)
    assert best_precision(CPU) == "bf16"
    assert measured["times"] == 2
    assert json.loads(file.read_text())["step_s"] == {"fp32": 2.0, "bf16": 1.0}


def test_where_nothing_can_be_kept_it_is_measured_each_time(
    measured: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("MAMMOSEARCH_CACHE", str(tmp_path / "file" / "below"))
    assert [best_precision(CPU), best_precision(CPU)] == ["bf16", "bf16"]
    assert measured["times"] == 2


def test_a_cpu_without_bf16_is_not_measured(measured: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_cpu_has_bf16", lambda: False)
    assert best_precision(CPU) == "fp32"
    assert measured["times"] == 0


def test_measuring_leaves_random_states_and_threads_as_they_are() -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    threads = torch.get_num_threads()
    seconds = precision._step_seconds()
    assert torch.equal(torch.rand(4), expected)
    assert torch.get_num_threads() == threads
    assert 0 < seconds["fp32"] < 60 and 0 < seconds["bf16"] < 60


@pytest.mark.parametrize(
    ("capability", "expected"), [((6, 0), "fp32"), ((7, 0), "fp16"), ((7, 5), "fp16"), ((9, 0), "bf16")]
)
def test_a_gpu_trains_in_what_it_is_fast_in(monkeypatch: pytest.MonkeyPatch, capability: tuple, expected: str) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert best_precision(torch.device("cuda")) == expected


def test_a_cpu_refuses_fp16() -> None:
    with pytest.raises(ValueError, match="fp16 needs a CUDA device"):
        check_precision("fp16", CPU)
    with pytest.raises(ValueError, match="fp16 needs a CUDA device"):
        TrialSession(small_config(precision="fp16"), disc_data())
