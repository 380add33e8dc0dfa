from search.methods.known import Known
from search.methods.rungs import Halving, Ladder, rung_epochs
from search.methods.steps import Resume, Stop


def decision(values, *, directions=("maximize",), eta=3, epoch=1):
    """What is decided of the last of some trials that stand at an epoch; the others have gone on."""
    known = Known()
    for number, value in enumerate(values):
        known.enter(number, {}, until=epoch)
        known.report(number, epoch, value if isinstance(value, tuple) else (value,))
    known.pause(len(values) - 1)
    return Halving(known, Ladder((1, 3), 9), reduction_factor=eta, directions=directions).choose(lambda: None)


def test_rungs_lie_below_the_full_budget():
    assert rung_epochs(grace_epochs=1, reduction_factor=3, epochs=9) == (1, 3)
    assert rung_epochs(grace_epochs=2, reduction_factor=2, epochs=9) == (2, 4, 8)
    assert rung_epochs(grace_epochs=5, reduction_factor=2, epochs=5) == ()


def test_first_trials_of_a_rung_are_never_pruned():
    assert decision([0.9, 0.1]) == Resume(number=1, until=3)


def test_trial_outside_the_best_third_is_pruned():
    assert decision([0.5, 0.6, 0.7, 0.1]) == Stop(number=3, reason="not among the best 1/3 after 1 epochs")


def test_best_trial_goes_on():
    assert decision([0.5, 0.6, 0.7, 0.9]) == Resume(number=3, until=3)


def test_ties_with_the_best_go_on():
    assert isinstance(decision([0.9, 0.9, 0.9, 0.9]), Resume)


def test_minimised_objective_prunes_the_large():
    assert isinstance(decision([0.5, 0.6, 0.7, 0.9], directions=("minimize",)), Stop)


def test_a_trial_is_compared_with_those_at_its_own_rung():
    known = Known()
    for number, value in enumerate((0.9, 0.9, 0.9, 0.1)):
        known.enter(number, {}, until=3)
        known.report(number, 3 if number == 3 else 1, (value,))
    known.pause(3)
    rungs = Halving(known, Ladder((1, 3), 9), reduction_factor=3, directions=("maximize",))
    assert rungs.choose(lambda: None) == Resume(number=3, until=9)


def test_two_objectives_prune_what_is_dominated():
    trials = [(0.9, 10), (0.8, 20), (0.5, 5), (0.4, 30)]
    assert isinstance(decision(trials, directions=("maximize", "minimize")), Stop)
    assert isinstance(decision(trials[:3], directions=("maximize", "minimize")), Resume)
