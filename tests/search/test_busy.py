import pytest

from search.busy import FINALS, LAST, SLOTS, Busy
from tests.search.simulation import make_config, make_engine, simulate


class Clock:
    """A second for each event."""

    def __init__(self, engine):
        self.now_s = 0.0
        engine.listeners.append(self.tick)

    def tick(self, event):
        self.now_s += 1.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def counted(tmp_path):
    def run(*, slots, **changes):
        engine = make_engine(make_config(**changes), tmp_path / "s", slots=slots)
        clock = Clock(engine)
        busy = Busy(engine.folder, engine, clock=clock)
        engine.listeners.append(busy)
        simulate(engine, slots=slots)
        busy.save()
        return engine, busy, clock

    return run


@pytest.mark.parametrize("slots", [1, 3])
def test_all_time_of_all_slots_is_busy_or_waits_for_something(counted, slots):
    _, busy, clock = counted(slots=slots)
    assert busy.busy_s + sum(busy.idle_s.values()) == pytest.approx(slots * clock.now_s)
    assert 0.5 < busy.share <= 1.0


def test_what_idle_slots_wait_for_is_named_and_written_down(counted):
    engine, busy, _ = counted(slots=8, final={"top": 1, "epochs": 5, "seeds": 1})
    assert busy.idle_s.keys() & {FINALS, LAST}
    written = engine.folder.read_json(SLOTS)
    assert written["busy_s"] == busy.busy_s and written["idle_s"] == dict(busy.idle_s)
    assert written["busy_share"] == pytest.approx(busy.share, abs=1e-4)


def test_sessions_are_added_up(counted):
    engine, busy, _ = counted(slots=3)
    again = Busy(engine.folder, engine, clock=lambda: 0.0)
    assert again.busy_s == pytest.approx(busy.busy_s, abs=0.1)
    assert "busy" in again.told()


def test_a_file_that_is_damaged_is_counted_from_nothing(counted):
    engine, _, _ = counted(slots=1)
    engine.folder.write_text(SLOTS, '{"busy_s": []')
    assert Busy(engine.folder, engine).busy_s == 0.0
