"""What Ray needs of a machine is checked before Ray is started, and said in one line."""

import os
import resource
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cluster.machine import LONGEST_TEMP, check_address, check_machine, session_folder
from tests.file_tree import ROOT


def in_a_shell(limits: str, code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", f"{limits}; exec {sys.executable} -c '{code}'"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_machine_like_this_one_is_enough() -> None:
    check_machine()


def test_too_few_open_files_are_told_with_the_command_that_raises_them() -> None:
    done = in_a_shell("ulimit -n 64", "from cluster.machine import check_machine; check_machine()")
    assert "RuntimeError: only 64 files may be open at once, and Ray needs 256: `ulimit -n 4096`" in done.stderr


@pytest.mark.skipif(resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 1024, reason="the hard limit is too low here")
def test_a_low_limit_that_may_be_raised_is_raised() -> None:
    code = "import resource; from cluster.machine import check_machine; check_machine(); "
    code += "print(resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= 1024)"
    assert in_a_shell("ulimit -S -n 64", code).stdout.strip() == "True"


@pytest.mark.parametrize("address", ["", "nonsense", "host:port", "10.0.0.1", "ray://", "x:99999999"])
def test_an_address_that_is_none_is_a_mistake(address: str) -> None:
    with pytest.raises(ValueError, match="must be host:port"):
        check_address(address)


def test_a_cluster_that_is_gone_is_told_soon() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    began = time.monotonic()
    for address in (f"127.0.0.1:{port}", f"ray://127.0.0.1:{port}"):
        with pytest.raises(ConnectionError, match=f"RAY_ADDRESS is .*127.0.0.1:{port}, where no cluster answers"):
            check_address(address)
    assert time.monotonic() - began < 30


def test_one_that_answers_is_left_to_ray() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        check_address(f"127.0.0.1:{server.getsockname()[1]}")
    check_address("auto")


def test_a_long_folder_for_sockets_is_replaced_by_a_short_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/tmp/" + "x" * 145)
    folder = session_folder()
    assert folder is not None and len(folder) <= LONGEST_TEMP
    assert Path(folder).parent.is_dir() and folder.endswith(f"ray-{os.getuid()}")
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    assert session_folder() is None
