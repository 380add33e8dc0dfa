"""A machine that is gone is told from a worker that died, though Ray knows of it later."""

from collections.abc import Iterator

from cluster.session import slot_resource  # noqa: F401 - sets what Ray reads when it is imported

import pytest

from cluster.pools import Pool
from trainables import on_ray
from trainables.on_ray import GroupEndedError, RayCrew

UNREACHABLE = GroupEndedError("WorkerGroupError: The actor 209a is unavailable: RpcError: Connection reset by peer")
DIED = GroupEndedError("WorkerGroupError: The actor died unexpectedly before finishing this task")


@pytest.fixture
def crew(monkeypatch: pytest.MonkeyPatch) -> RayCrew:
    """A crew whose workers ran on node `a`; time passes by itself."""
    clock: Iterator[float] = iter(range(10_000))
    monkeypatch.setattr(on_ray.time, "monotonic", lambda: float(next(clock)))
    monkeypatch.setattr(on_ray.time, "sleep", lambda _: None)
    crew = RayCrew(Pool(name="cpu"))
    crew._nodes = {"a"}
    return crew


def known_dead_after(asked: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Ray says that `a` lives until it was asked so often; the list grows with each question."""
    questions: list[int] = []

    def nodes() -> list[dict[str, object]]:
        questions.append(1)
        return [{"NodeID": "a", "Alive": len(questions) <= asked}, {"NodeID": "b", "Alive": True}]

    monkeypatch.setattr(on_ray.ray, "nodes", nodes)
    return questions


def test_a_machine_whose_loss_ray_learns_late_is_lost(crew: RayCrew, monkeypatch: pytest.MonkeyPatch) -> None:
    known_dead_after(20, monkeypatch)
    assert crew._machine_lost(UNREACHABLE)


def test_a_machine_that_stays_is_not_waited_for_for_ever(crew: RayCrew, monkeypatch: pytest.MonkeyPatch) -> None:
    questions = known_dead_after(10_000, monkeypatch)
    assert not crew._machine_lost(UNREACHABLE)
    assert len(questions) <= on_ray.NODE_DEATH_S + 2


def test_a_worker_that_died_by_itself_is_told_at_once(crew: RayCrew, monkeypatch: pytest.MonkeyPatch) -> None:
    questions = known_dead_after(10_000, monkeypatch)
    assert not crew._machine_lost(DIED)
    assert len(questions) <= 2


def test_a_machine_that_was_announced_to_go_is_lost_though_it_still_answers(
    crew: RayCrew, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray.train.v2.api.exceptions import PreemptionError
    from ray.train.v2.api.preemption import PreemptionInfo

    known_dead_after(10_000, monkeypatch)
    announced = PreemptionError(PreemptionInfo(deadline_ms=1, preempted_node_to_ranks={"a": [0]}))
    assert crew._machine_lost(GroupEndedError(on_ray._why_ended(announced)))
    assert not crew._machine_lost(GroupEndedError(on_ray._why_ended(RuntimeError("worker failed"))))
