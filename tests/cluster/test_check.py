"""Shipped cluster files are right; each planted mistake is found, at its line."""

import copy
import logging
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from cluster.check.cluster_file import check_file, pools_of
from cluster.gpu import Gpu, advice, supports
from cluster.run import app
from tests.file_tree import ROOT

FILES = sorted((ROOT / "cluster" / "files").glob("*.yaml"))
RAY_FILES = [file for file in FILES if file.stem != "kuberay"]
PAPER = ROOT / "configs" / "paper.yaml"


def planted(tmp_path: Path, file: str, old: str, new: str) -> Path:
    """A copy of a shipped file in which the first `old` is `new`."""
    text = (ROOT / "cluster" / "files" / file).read_text()
    assert old in text, f"{file} no longer has {old!r}"
    copied = tmp_path / file
    copied.write_text(text.replace(old, new, 1))
    return copied


@pytest.mark.parametrize("file", RAY_FILES, ids=lambda file: file.stem)
def test_ray_itself_takes_every_shipped_file(file: Path) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    logging.disable(logging.WARNING)
    try:
        prepared = prepare_config(copy.deepcopy(yaml.safe_load(file.read_text())))
        validate_config(prepared)
    finally:
        logging.disable(logging.NOTSET)
    assert prepared["head_node_type"] in prepared["available_node_types"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_shipped_file_passes_the_check_and_says_what_to_fill_in(file: Path) -> None:
    assert any("YOUR-" in note for note in check_file(file))


@pytest.mark.parametrize("file", ["gcp.yaml", "kuberay.yaml"])
def test_the_papers_pools_can_be_made(file: str) -> None:
    pools = pools_of(PAPER)
    assert [pool.name for pool in pools] == ["p100", "t4x2"]
    check_file(ROOT / "cluster" / "files" / file, pools=pools)


def test_a_cluster_without_p100_is_told_from_the_study(tmp_path: Path) -> None:
    with pytest.raises(match="no machine can make a slot of pool p100"):
        check_file(ROOT / "cluster" / "files" / "aws.yaml", pools=pools_of(PAPER))


MISTAKES = [
    ("gcp.yaml", "max_workers: 12", "max_worker: 12", "did you mean max_workers"),
    (
        "gcp.yaml",
        "    min_workers: 0\n    max_workers: 4",
        "    min_workers: 5\n    max_workers: 4",
        "more than max_workers",
    ),
    ("gcp.yaml", "    max_workers: 4", "    max_workers: 40", "more than the cluster's max_workers"),
    ("gcp.yaml", "      machineType: n1-standard-8", "      machine_type: n1-standard-8", "did you mean machineType"),
    ("gcp.yaml", "          acceleratorCount: 2", "          acceleratorCoun: 2", "did you mean acceleratorCount"),
    ("gcp.yaml", "        - provisioningModel: SPOT", "        - provisioningModel: SPOTS", "not one of the choices"),
    ("gcp.yaml", '{ CPU: 8, GPU: 2, "accelerator_type:T4": 1 }', "{ CPU: 8, GPU: 2 }", "does not say which"),
    ("gcp.yaml", '"accelerator_type:P100"', '"accelerator_type:P10"', "did you mean P100"),
    ("gcp.yaml", 'GPU: 2, "acc', 'GPU: 4, "acc', "not the number of guestAccelerators"),
    ("gcp.yaml", "slot_p100: 4, ", "slot_p100: 5, ", "at most 4"),
    ("gcp.yaml", "slot_p100: 4, ", "slot_p10: 4, ", "no such pool"),
    ("gcp.yaml", "{ CPU: 0, slot_p100: 4, slot_t4x2: 4, slot_cpu: 4 }", "{ CPU: 0 }", "no trial ever starts"),
    ("gcp.yaml", "head_node_type: head", "head_node_type: haed", "not one of available_node_types"),
    ("gcp.yaml", "{ CPU: 4, GPU: 1, ", "{ CPU: 2, GPU: 1, ", "no machine can make a slot of pool p100"),
    ("gcp.yaml", "--dashboard-host=127.0.0.1", "--dashboard-host=0.0.0.0", "listens to 0.0.0.0"),
    ("gcp.yaml", "  ~/.ray/auth_token: ~/.ray/auth_token", "", "the nodes get no token"),
    ("gcp.yaml", "  project_id: YOUR-PROJECT", "  project_id: YOUR-PROJECT\n  password: hunter2hunter2", "a secret"),
    ("gcp.yaml", "  ~/mammosearch/clinic: clinic\n", "", "the nodes get no clinic"),
    (
        "aws.yaml",
        "      InstanceMarketOptions: { MarketType: spot }",
        "      InstanceMarketOption: { MarketType: spot }",
        "did you",
    ),
    ("aws.yaml", "slot_t4: 4, slot_t4x2: 4,", "slot_t4: 8, slot_t4x2: 4,", "take 16 T4 together"),
    (
        "azure.yaml",
        "        vmSize: Standard_NC4as_T4_v3",
        "        vmsize: Standard_NC4as_T4_v3",
        "did you mean vmSize",
    ),
    ("on_prem.yaml", '{"slot_t4x2": 2}', '{"slot_t4x2": 3}', "at most 2"),
    ("on_prem.yaml", "  head_ip: YOUR-HEAD", "  head_ipp: YOUR-HEAD", "head_ip is missing"),
    ("kuberay.yaml", "      maxReplicas: 4", "      maxReplica: 4", "did you mean maxReplicas"),
    ("kuberay.yaml", "      minReplicas: 0", "      minReplicas: 9", "more than maxReplicas"),
    ("kuberay.yaml", "      mode: token", "      mode: disabled", "without its token"),
    ("kuberay.yaml", "  shutdownAfterJobFinishes: true", "  shutdownAfterJobFinishes: sure", "of the wrong type"),
    ("kuberay.yaml", 'num-cpus: "0"', 'num-cpus: "4"', "the head would train"),
    ("kuberay.yaml", '{\\"slot_p100\\": 4', '{\\"slot_p100\\": 7', "at most 4"),
]


SECTION = {
    "no machine can make a slot of pool p100": "p100:",
    "listens to 0.0.0.0": "head_start_ray_commands:",
    "at most 2": "head_start_ray_commands:",
    "the nodes get no token": "file_mounts:",
    "the nodes get no clinic": "file_mounts:",
    "did you": "InstanceMarketOption:",
    "take 16 T4 together": "resources:",
    "head_ip is missing": "provider:",
    "without its token": "authOptions:",
}
"""Where a mistake is told at the section that it is in: what stands on the line that is named."""


@pytest.mark.parametrize(("file", "old", "new", "message"), MISTAKES, ids=[f"{m[0]}-{m[3]}" for m in MISTAKES])
def test_a_planted_mistake_is_found_with_its_line(tmp_path: Path, file: str, old: str, new: str, message: str) -> None:
    copied = planted(tmp_path, file, old, new)
    with pytest.raises(match=message) as caught:
        check_file(copied)
    told = next(text for text in str(caught.value).splitlines() if message in text)
    number = int(told.removeprefix(f"{copied}:").split()[0])
    wanted = SECTION.get(message) or new.strip().splitlines()[0 if "min_workers" in new else -1]
    assert wanted in copied.read_text().splitlines()[number - 1], told


def test_every_mistake_of_a_file_is_told_at_once(tmp_path: Path) -> None:
    copied = planted(tmp_path, "gcp.yaml", "      machineType: n1-standard-8", "      machinetype: n1-standard-8")
    copied.write_text(copied.read_text().replace("acceleratorCount: 1", "acceleratorCount: one"))
    with pytest.raises(match="3 mistakes"):
        check_file(copied)


def test_what_is_no_yaml_is_told_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "broken.yaml"
    file.write_text("cluster_name: x\nprovider: {type: gcp\n")
    with pytest.raises(match=r"broken.yaml:3"):
        check_file(file)


def test_p100_is_told_which_torch_to_install() -> None:
    torch_215 = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120"]
    told = advice(Gpu("Tesla P100-PCIE-16GB", (6, 0)), torch_215, "2.15.0+cu132")
    assert told is not None
    assert "sm_60" in told
    assert "torch==2.13.0" in told
    assert "TORCH_INDEX_URL" in told
    assert advice(Gpu("Tesla T4", (7, 5)), torch_215, "2.15.0+cu132") is None


def test_p100_runs_on_the_torch_that_is_advised() -> None:
    cu126 = ["sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90"]
    assert advice(Gpu("Tesla P100", (6, 0)), cu126, "2.13.0+cu126") is None


@pytest.mark.parametrize(
    ("architectures", "capability", "runs"),
    [
        (["sm_80"], (8, 6), True),  # machine code runs on later revisions of its generation,
        (["sm_86"], (8, 0), False),  # not on earlier ones,
        (["sm_80"], (9, 0), False),  # nor on the next generation,
        (["compute_80"], (9, 0), True),  # which translates what can be translated,
        (["sm_90a"], (9, 0), True),  # and code for one GPU alone runs there alone
        (["compute_90a"], (10, 0), False),
        ([], (9, 0), False),
    ],
)
def test_which_code_runs_where(architectures: list[str], capability: tuple[int, int], runs: bool) -> None:
    assert supports(architectures, capability) is runs


def test_a_gpu_newer_than_torch_and_a_torch_without_cuda_are_told_apart() -> None:
    assert "newer torch" in str(advice(Gpu("B200", (10, 0)), ["sm_90"], "2.7.0"))
    assert "without CUDA" in str(advice(Gpu("T4", (7, 5)), [], "2.13.0+cpu"))


def test_the_command_says_what_is_wrong_and_exits_with_2(tmp_path: Path) -> None:
    copied = planted(tmp_path, "gcp.yaml", "max_workers: 12", "max_worker: 12")
    result = CliRunner().invoke(app, ["check", str(copied)])
    assert result.exit_code == 2
    assert f"{copied}:12  max_worker: unknown key" in result.output
    good = CliRunner().invoke(app, ["check", str(ROOT / "cluster" / "files" / "gcp.yaml"), "--space", str(PAPER)])
    assert good.exit_code == 0, good.output
    assert "makes the pools p100, t4x2" in good.output
    assert CliRunner().invoke(app, ["check"]).exit_code == 2


def test_the_storage_check_passes_on_a_disk_and_leaves_nothing(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["check", "--storage", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert list(tmp_path.iterdir()) == []


def test_a_storage_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = CliRunner().invoke(app, ["check", "--storage", str(tmp_path / "file")])
    assert result.exit_code == 2
    assert "cannot write" in result.output
