"""python -m pytest tests/cluster/test_watchdog.py: Ray's servers are watched; here they are made-up processes."""

import subprocess
import sys
import threading
import time

import psutil
import pytest

pytest.importorskip("ray")

from cluster import watchdog
from cluster.cli import BrokenOffError

NODE = "ours"


class FakeRay:
    """What the watch asks Ray: who this node is, and which nodes live."""

    def __init__(self):
        self.nodes = lambda: [{"NodeID": NODE, "Alive": True}]

    def get_runtime_context(self):
        return self

    def get_node_id(self):
        return NODE


@pytest.fixture
def fake_ray(monkeypatch):
    fake = FakeRay()
    monkeypatch.setattr(watchdog, "ray", fake)
    monkeypatch.setattr(watchdog, "LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(watchdog, "GRACE_S", 3600.0)
    return fake


def work(seconds=60.0):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        time.sleep(0.05)


def test_work_whose_ray_answers_is_left_alone(fake_ray):
    with watchdog.watched(silent_s=2.0):
        work(3.0)


def test_a_server_that_is_gone_ends_the_work_at_once(fake_ray, monkeypatch):
    server = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    monkeypatch.setattr(watchdog, "SERVERS", (psutil.Process(server.pid).name(),))
    threading.Timer(0.5, server.kill).start()
    with pytest.raises(BrokenOffError, match="is gone"), watchdog.watched(silent_s=3600.0):
        work()
    server.wait()


@pytest.mark.parametrize("answer", ["none", "dead", "error"])
def test_servers_that_do_not_answer_end_the_work(fake_ray, answer):
    if answer == "none":
        fake_ray.nodes = lambda: time.sleep(3600)
    elif answer == "dead":
        fake_ray.nodes = lambda: [{"NodeID": NODE, "Alive": False}, {"NodeID": "another", "Alive": True}]
    else:
        fake_ray.nodes = lambda: 1 / 0
    with pytest.raises(BrokenOffError, match="has not answered for 1 s"), watchdog.watched(silent_s=1.0):
        work()


def test_another_error_stays_what_it_is(fake_ray):
    with pytest.raises(KeyError), watchdog.watched():
        raise KeyError("x")
