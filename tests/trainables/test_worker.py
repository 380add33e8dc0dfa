"""python -m pytest tests/trainables/test_worker.py: what a process is told before a trial, and what it tells."""

import gc
import random
import subprocess
import sys

import numpy as np
import pytest
import torch

from trainables.net.vision_ops import _declared, import_torchvision
from trainables.step.worker import Worker, host_memory_errors, peak_memory_gb, prepare_process, seed_everything


def test_random_states_depend_on_the_numbers_given_and_nothing_else() -> None:
    def draws(*parts: int) -> tuple[float, float, float]:
        random.random()
        seed_everything(*parts)
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    assert draws(3, 1, 0) == draws(3, 1, 0)
    assert len({draws(3, 1, 0), draws(3, 1, 1), draws(3, 2, 0), draws(4, 1, 0)}) == 4


def test_threads_are_what_the_place_says() -> None:
    before = torch.get_num_threads()
    try:
        prepare_process(Worker(threads=2))
        assert torch.get_num_threads() == 2
        prepare_process(Worker())
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can count a process's peak anew")
def test_peak_memory_counts_from_the_start_of_the_trial() -> None:
    gc.collect()  # what earlier tests left behind would be freed meanwhile, and hide what is allocated
    cpu = prepare_process(Worker())
    base_gb = peak_memory_gb(cpu)
    block = np.ones(200_000_000, np.uint8)
    assert peak_memory_gb(cpu) > base_gb + 0.15
    del block
    prepare_process(Worker())
    assert peak_memory_gb(cpu) < base_gb + 0.1


def test_a_host_allocation_that_fails_is_a_memory_error() -> None:
    with pytest.raises(MemoryError, match="allocate"), host_memory_errors():
        torch.empty(2**55)
    with pytest.raises(RuntimeError, match="shape"), host_memory_errors():
        torch.zeros(2).view(3)


@pytest.mark.slow
def test_torchvision_is_helped_only_where_its_plain_import_fails() -> None:
    plain = subprocess.run([sys.executable, "-c", "import torchvision"], capture_output=True, text=True, check=False)
    assert bool(_declared) == (plain.returncode != 0), plain.stderr
    before = len(_declared)
    import_torchvision()
    assert len(_declared) == before
