"""What a study says of itself while it runs: trial k of n, the best so far, and the time that is left."""

import re

import pytest

from search.standing import Standing
from tests.search.simulation import make_config, make_engine, simulate


class Told:
    """Counts the seconds of a study whose every epoch takes ten, on one slot, and notes what is said after each."""

    usd = 0.0

    def __init__(self, engine):
        self.elapsed_s = 0.0
        self.standing = Standing(engine.config, engine.trials, self)
        self.said = []
        """(seconds so far, seconds that are said to be left, headline) at every end of a trial or final."""

    def __call__(self, event):
        self.elapsed_s += 10 * (event.kind == "epoch")
        self.standing(event)
        if event.kind == "ended":
            self.said.append((self.elapsed_s, self.standing.left_s, self.standing.headline()))


@pytest.fixture
def told(tmp_path):
    engine = make_engine(make_config(final={"top": 2, "epochs": 30, "seeds": 2}), tmp_path / "s")
    told = Told(engine)
    engine.listeners.append(told)
    simulate(engine, slots=1)
    return told


def test_time_left_counts_finals_in_full_and_pruned_trials_for_what_they_cost(told):
    """Without the finals 140 s would be said at most; with pruned trials in full, far too much at the end."""
    finals_s, (total_s, _, _) = 2 * 2 * 30 * 10, told.said[-1]
    took, left, _ = told.said[0]
    assert left > finals_s
    for took, left, _ in told.said[7:]:
        assert left == pytest.approx(total_s - took, rel=0.05, abs=20)
    assert told.said[-1][1] == 0


def test_a_headline_tells_trial_k_of_n_the_best_and_the_time_left(told):
    trials = [int(re.search(r"trial (\d+) of 14 ", headline)[1]) for _, _, headline in told.said]
    assert trials == [*range(1, 15), *[14] * 4]
    best = [float(re.search(r"best (0\.\d{4}) \(\d{4}\)", headline)[1]) for _, _, headline in told.said]
    assert best == sorted(best)
    assert all(re.search(r"about \d+:\d{2} left", headline) for _, _, headline in told.said)


def test_nothing_is_said_of_the_time_left_before_the_first_epoch(tmp_path):
    engine = make_engine(make_config(), tmp_path / "s")
    standing = Standing(engine.config, engine.trials, engine.spent)
    assert standing.left_s is None
    assert "no result yet" in standing.headline() and "left" not in standing.headline()
