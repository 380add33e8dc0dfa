import numpy as np
import optuna
import pytest

from search.methods.known import Known
from search.methods.names import PRUNERS, SAMPLER_NAMES, Setup
from search.methods.points import Points
from search.methods.rungs import Halving, Ladder
from search.methods.steps import Proposal, Resume, Start, Stop
from search.settings.space import Axis, Space
from tests.search.slots import EPOCHS, SPACE, Slots

FINITE = ("grid",)
"""Samplers of finite spaces alone."""
SAMPLERS = [name for name in SAMPLER_NAMES if name not in FINITE]


@pytest.mark.parametrize("objectives", [1, 2])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_sampler_killed_after_every_event_proposes_as_the_undisturbed(sampler, objectives):
    trials = 8 if sampler == "gp" else 16  # it takes a tenth of a second for each proposal
    whole = Slots(sampler, "asha", objectives=objectives, trials=trials).run()
    killed = Slots(sampler, "asha", objectives=objectives, trials=trials, rebuild_every=1).run()
    assert killed.log == whole.log
    assert len(whole.known.trials) == trials


@pytest.mark.parametrize("objectives", [1, 2])
@pytest.mark.parametrize("pruner", PRUNERS)
def test_pruner_killed_after_every_event_decides_as_the_undisturbed(pruner, objectives):
    whole = Slots("random", pruner, objectives=objectives).run()
    assert Slots("random", pruner, objectives=objectives, rebuild_every=1).run().log == whole.log
    assert not whole.known.open, "a trial was left behind"


def test_nsga2_is_exact_over_many_generations():
    whole = Slots("nsga2", "none", objectives=2, trials=40).run()
    generations = [trial.notes["NSGAIISampler:generation"] for trial in whole.known]
    assert max(generations) >= 6
    assert Slots("nsga2", "none", objectives=2, trials=40, rebuild_every=7).run().log == whole.log


@pytest.mark.parametrize(("sampler", "pruner"), [("tpe", "asha"), ("nsga2", "asha"), ("forecast", "freeze")])
def test_every_decision_follows_from_what_was_known_when_it_was_made(sampler, pruner):
    study = Slots(sampler, pruner).run()
    assert len(study.decisions) > 20
    for position, step in study.decisions[::3]:
        known, method = study.rebuilt(position)
        assert known.position == position
        assert method.next() == step


def test_a_changed_value_in_the_log_is_found_by_deciding_again():
    study = Slots("forecast", "freeze").run()
    place = next(i for i, (event, _, _) in enumerate(study.log) if event == "report" and i > 30)
    event, (number, epoch, values), named = study.log[place]
    study.log[place] = (event, (number, epoch, (values[0] + 0.5,)), named)
    later = [(position, step) for position, step in study.decisions if position > place]
    assert any(study.rebuilt(position)[1].next() != step for position, step in later)


def test_baselines_are_of_nsga2s_first_generation():
    known = Known()
    setup = Setup(SPACE, known, seed=0, epochs=EPOCHS, directions=["maximize", "minimize"], population=4)
    for number, params in enumerate(SPACE.baselines()):
        known.enter(number, params, until=EPOCHS, baseline=True)
        known.end(number, "complete", (0.1 * number, 1.0))
    known.enter(3, SPACE.baselines()[0], until=EPOCHS)
    known.end(3, "complete", (0.9, 1.0))
    assert setup.sampler("nsga2").propose(4, 0).notes["NSGAIISampler:generation"] == 1


def test_known_configurations_are_not_proposed_again_until_a_finite_space_is_done():
    space = Space(axes={"encoder": Axis(choices=("mobilenet", "vgg19")), "batch_size": Axis(choices=(4, 8))}, epochs=2)
    for sampler in SAMPLER_NAMES:
        known = Known()
        setup = Setup(space, known, seed=0, epochs=2, directions=["maximize"], startup_trials=1)
        method = setup.method(sampler=sampler, pruner="none", trials=10)
        while isinstance(step := method.next(), Start):
            number = len(known.trials)
            known.enter(number, step.proposal.params, until=2)
            known.report(number, 2, (0.5,))
            known.end(number, "complete", (0.5,))
        assert step is None
        assert len({space.key(trial.params) for trial in known}) == len(known.trials) == 4, sampler


def test_infeasible_configurations_are_avoided():
    space = Space(axes={"batch_size": Axis(low=1, high=64)}, fixed={"encoder": "mobilenet"}, epochs=2)
    for sampler in ("tpe", "forecast"):
        known = Known()
        proposes = Setup(space, known, seed=0, epochs=2, directions=["maximize"], startup_trials=4).sampler(sampler)
        sizes = []
        for number in range(30):
            params = proposes.propose(number, 0).params
            sizes.append(params["batch_size"])
            known.enter(number, params, until=2)
            if params["batch_size"] > 24:
                known.end(number, "infeasible")
            else:
                known.report(number, 2, (0.5 + 0.001 * params["batch_size"],))
                known.end(number, "complete", (0.5 + 0.001 * params["batch_size"],))
        assert sum(size > 24 for size in sizes[10:]) < 10, sampler


def proposing(params=None):
    return lambda: Proposal(params=params or {"encoder": "mobilenet"}, notes={})


def known_at(epoch, values, *, encoders=None):
    """Trials that have each of `values` after `epoch`, the last of them paused there."""
    known = Known()
    for number, value in enumerate(values):
        known.enter(number, {"encoder": (encoders or ["mobilenet"] * len(values))[number]}, until=epoch)
        known.report(number, epoch, (value,))
        if number < len(values) - 1:
            known.end(number, "pruned", (value,))
    known.pause(len(values) - 1)
    return known


def halving(known, **changes):
    return Halving(known, Ladder((1, 3), 9), reduction_factor=3, directions=["maximize"], **changes)


def test_asha_stops_what_is_not_among_the_best_third_and_sends_on_what_is():
    assert isinstance(halving(known_at(1, [0.5, 0.6, 0.7, 0.1])).choose(proposing()), Stop)
    assert halving(known_at(1, [0.5, 0.6, 0.1, 0.7])).choose(proposing()) == Resume(number=3, until=3)
    assert halving(known_at(3, [0.5, 0.6, 0.1, 0.7])).choose(proposing()) == Resume(number=3, until=9)


def test_ladder_compares_a_trial_with_its_encoder_alone():
    encoders = ["vgg19", "vgg19", "vgg19", "mobilenet"]
    known = known_at(1, [0.5, 0.6, 0.7, 0.1], encoders=encoders)
    assert isinstance(halving(known).choose(proposing()), Stop)
    assert isinstance(halving(known, by_encoder=True).choose(proposing()), Resume)


def test_corrected_rungs_add_what_the_encoder_gained_after_the_rung():
    known = known_at(1, [0.5, 0.6, 0.7, 0.3], encoders=["vgg19", "vgg19", "vgg19", "mobilenet"])
    known.enter(9, {"encoder": "mobilenet"}, until=9)
    known.report(9, 1, (0.2,))
    known.report(9, 9, (0.9,))
    known.end(9, "complete", (0.9,))
    assert isinstance(halving(known).choose(proposing()), Stop)
    assert isinstance(halving(known, corrected=True).choose(proposing()), Resume)


def test_promotion_pauses_and_takes_up_the_best_once_enough_have_come():
    known = Known()
    pruner = halving(known, promotes=True)
    for number, value in enumerate([0.5, 0.9]):
        known.enter(number, {}, until=1)
        known.report(number, 1, (value,))
        known.pause(number)
    assert isinstance(pruner.choose(proposing()), Start)
    known.enter(2, {}, until=1)
    known.report(2, 1, (0.1,))
    known.pause(2)
    assert pruner.choose(proposing()) == Resume(number=1, until=3)


def test_paused_trials_end_when_nothing_new_may_begin_and_none_of_them_is_to_go_on():
    known = Known()
    for number in range(2):
        known.enter(number, {}, until=1)
        known.report(number, 1, (0.5,))
        known.pause(number)
    assert isinstance(halving(known, promotes=True).choose(lambda: None), Stop)


def test_baselines_are_never_stopped():
    for name in PRUNERS:
        known = known_at(1, [0.5, 0.6, 0.7, 0.1])
        known.trials[3].baseline = True
        setup = Setup(SPACE, known, seed=0, epochs=9, directions=["maximize"], reduction_factor=3)
        for trial in known:
            trial.params = SPACE.baselines()[trial.number % 3]
        assert isinstance(setup.pruner(name).choose(proposing(SPACE.baselines()[0])), Resume), name


def test_freeze_takes_up_the_slow_starter_that_its_like_has_vouched_for():
    """Trial 2 lies behind trial 1, but its encoder has been seen to end high, and that of trial 1 to end low."""
    space = Space(axes={"encoder": Axis(choices=("mobilenet", "vgg19")), "batch_size": Axis(choices=(4, 8))}, epochs=8)
    known = Known()
    slow, quick = {"encoder": "vgg19"}, {"encoder": "mobilenet"}
    curves = [({**slow, "batch_size": 4}, 0.1, 0.9, 8), ({**quick, "batch_size": 4}, 0.5, 0.6, 8)]
    for number, (params, first, last, epochs) in enumerate(curves):
        known.enter(number, params, until=8, baseline=True)
        for epoch in range(1, epochs + 1):
            known.report(number, epoch, (first + (last - first) * np.log(epoch) / np.log(8),))
        known.end(number, "complete", known.trials[number].last)
    for number, (params, value) in enumerate([({**quick, "batch_size": 8}, 0.5), ({**slow, "batch_size": 8}, 0.15)], 2):
        known.enter(number, params, until=1)
        known.report(number, 1, (value,))
        known.pause(number)
    setup = Setup(space, known, seed=0, epochs=8, directions=["maximize"])
    step = setup.pruner("freeze").choose(lambda: None)
    while isinstance(step, Stop):
        assert step.number == 2
        known.end(2, "pruned", (0.5,))
        step = setup.pruner("freeze").choose(lambda: None)
    assert step == Resume(number=3, until=2)


def test_points_stay_in_their_space():
    points, rng = Points(SPACE), np.random.default_rng(0)
    drawn = [points.draw(rng) for _ in range(200)]
    near = [points.near(params, rng) for params in drawn]
    assert all(SPACE.contains(params) for params in drawn + near)
    assert {params["batch_size"] for params in drawn} == {4, 8, 16}
    rows = points.rows(drawn)
    assert np.nanmin(rows[:, 1]) >= 0 and np.nanmax(rows[:, 1]) <= 1
    gaps = points.gaps(rows, rows)
    assert gaps.shape == (5, 200, 200) and gaps.min() == 0 and gaps.max() <= 1
    assert (np.diagonal(gaps, axis1=1, axis2=2) == 0).all()


def test_what_a_sampler_is_shown_is_bounded():
    known = Known()
    setup = Setup(SPACE, known, seed=0, epochs=EPOCHS, directions=["maximize"])
    sampler = setup.sampler("tpe")
    points, rng = Points(SPACE), np.random.default_rng(0)
    for number in range(1500):
        known.enter(number, points.draw(rng), until=1)
        if number < 1490:
            known.end(number, "complete", (1.0 if number == 7 else 0.001 * (number % 10),))
    shown = [trial.number for trial in sampler._shown()]
    assert 7 in shown and shown == sorted(shown) and set(range(1490, 1500)) <= set(shown)
    assert 400 <= len(shown) <= 510
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    assert SPACE.contains(sampler.propose(1500, 0).params)
