from search.pruner import Rungs, rung_epochs


def rungs_with(values, *, directions=("maximize",), eta=3):
    rungs = Rungs((1, 3), reduction_factor=eta, directions=directions)
    for number, value in enumerate(values):
        rungs.record(number, 1, value if isinstance(value, tuple) else (value,))
    return rungs


def test_rungs_lie_below_the_full_budget():
    assert rung_epochs(grace_epochs=1, reduction_factor=3, epochs=9) == (1, 3)
    assert rung_epochs(grace_epochs=2, reduction_factor=2, epochs=9) == (2, 4, 8)
    assert rung_epochs(grace_epochs=5, reduction_factor=2, epochs=5) == ()


def test_first_trials_of_a_rung_are_never_pruned():
    rungs = rungs_with([0.9, 0.1])
    assert not rungs.should_prune(1, 1, known_below=1)


def test_trial_outside_the_best_third_is_pruned():
    rungs = rungs_with([0.5, 0.6, 0.7, 0.1])
    assert rungs.should_prune(3, 1, known_below=3)


def test_best_trial_goes_on():
    rungs = rungs_with([0.5, 0.6, 0.7, 0.9])
    assert not rungs.should_prune(3, 1, known_below=3)


def test_ties_with_the_best_go_on():
    rungs = rungs_with([0.9, 0.9, 0.9, 0.9])
    assert not rungs.should_prune(3, 1, known_below=3)


def test_minimised_objective_prunes_the_large():
    rungs = rungs_with([0.5, 0.6, 0.7, 0.9], directions=("minimize",))
    assert rungs.should_prune(3, 1, known_below=3)


def test_epochs_between_rungs_never_prune():
    rungs = rungs_with([0.9, 0.9, 0.9, 0.1])
    rungs.record(3, 2, (0.0,))
    assert not rungs.should_prune(3, 2, known_below=3)


def test_decision_ignores_trials_that_may_still_run():
    rungs = rungs_with([0.5, 0.9, 0.9, 0.9, 0.6])
    assert not rungs.should_prune(4, 1, known_below=1)
    assert rungs.should_prune(4, 1, known_below=4)


def test_two_objectives_prune_what_is_dominated():
    rungs = rungs_with([(0.9, 10), (0.8, 20), (0.5, 5), (0.4, 30)], directions=("maximize", "minimize"))
    assert rungs.should_prune(3, 1, known_below=3)
    assert not rungs.should_prune(2, 1, known_below=2)


def test_rebuilt_rungs_equal_the_recorded():
    first = rungs_with([0.5, 0.6, 0.7])
    second = Rungs((1, 3), reduction_factor=3, directions=("maximize",))
    second.rebuild([(0, {1: (0.5,), 2: (0.55,)}), (1, {1: (0.6,)}), (2, {1: (0.7,)})])
    assert second.records == first.records
