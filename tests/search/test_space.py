"""The space: what is suggested, what is the same trial, what the baselines are."""

import itertools

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from search.distributions import suggest
from search.settings.space import AXES, Axis, Space
from trainables.config import PAPER_ENCODERS, TrialConfig


def space_of(axes: dict, **fixed: object) -> Space:
    return Space({name: Axis.model_validate(axis) for name, axis in axes.items()}, fixed)


CONDITIONAL = {
    "momentum": {"low": 0.8, "high": 0.99, "when": {"optimiser": ["sgd", "rmsprop"]}},
    "optimiser": {"choices": ["adam", "sgd"], "when": {"encoder": "vgg19"}},
    "encoder": ["mobilenet", "vgg19"],
}


def suggestions(space: Space, count: int, seed: int = 0) -> list[dict]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    return [suggest(space, study.ask()) for _ in range(count)]


def test_only_active_axes_are_suggested():
    space = space_of(CONDITIONAL)
    seen = {tuple(sorted(params)): params for params in suggestions(space, 40)}
    assert set(seen) == {("encoder",), ("encoder", "optimiser"), ("encoder", "momentum", "optimiser")}
    for params in seen.values():
        assert ("momentum" in params) == (params.get("optimiser") == "sgd")
        assert ("optimiser" in params) == (params["encoder"] == "vgg19")


def test_every_suggestion_is_a_point_of_the_space_and_makes_a_configuration():
    space = space_of(
        {
            **CONDITIONAL,
            "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
            "batch_size": {"low": 4, "high": 16, "step": 4},
            "dice_weight": {"low": 0, "high": 1, "step": 0.1},
        }
    )
    for params in suggestions(space, 60):
        assert space.contains(params)
        config = space.to_config(params)
        assert all(getattr(config, n) == pytest.approx(v) if n == "learning_rate" else True for n, v in params.items())
        assert config.batch_size in (4, 8, 12, 16)


def test_a_point_with_a_value_outside_or_too_many_or_too_few_axes_is_not_in_the_space():
    space = space_of(CONDITIONAL)
    assert space.contains({"encoder": "vgg19", "optimiser": "sgd", "momentum": 0.9})
    assert not space.contains({"encoder": "vgg19", "optimiser": "sgd", "momentum": 0.5})
    assert not space.contains({"encoder": "vgg19", "optimiser": "sgd"})
    assert not space.contains({"encoder": "mobilenet", "optimiser": "adam"})
    assert not space.contains({"encoder": "resnet18"})


def test_inactive_values_are_dropped_so_the_points_are_one_trial():
    space = space_of(CONDITIONAL)
    assert space.key({"encoder": "mobilenet", "optimiser": "sgd", "momentum": 0.9}) == space.key(
        {"encoder": "mobilenet"}
    )
    assert space.active({"encoder": "mobilenet", "momentum": 0.9}) == {"encoder": "mobilenet"}


def test_missing_values_of_active_axes_are_named():
    with pytest.raises(ValueError, match="no value for encoder"):
        space_of(CONDITIONAL).to_config({})


def test_an_inactive_axis_takes_the_fixed_value():
    space = space_of(
        {"encoder": ["mobilenet", "vgg19"], "batch_size": {"choices": [16], "when": {"encoder": "vgg19"}}}, batch_size=4
    )
    assert space.to_config({"encoder": "mobilenet"}).batch_size == 4
    assert space.to_config({"encoder": "vgg19", "batch_size": 16}).batch_size == 16


def test_proportional_loss_weights_are_one_trial():
    space = space_of({"dice_weight": [1, 2, 3], "iou_weight": [1, 2, 3]})
    assert space.key({"dice_weight": 1, "iou_weight": 1}) == space.key({"dice_weight": 2, "iou_weight": 2})
    assert space.key({"dice_weight": 1, "iou_weight": 2}) != space.key({"dice_weight": 2, "iou_weight": 1})
    assert space.size() == 7  # of nine cells (1, 1), (2, 2) and (3, 3) are the same


@given(st.floats(0, 1))
def test_the_weight_that_is_not_named_is_one_minus_the_other(weight: float):
    config = space_of({"dice_weight": {"low": 0, "high": 1}}).to_config({"dice_weight": weight})
    assert config.dice_weight == pytest.approx(weight, abs=1e-9)
    assert config.iou_weight == pytest.approx(1 - weight, abs=1e-9)
    other = space_of({"iou_weight": {"low": 0, "high": 1}}).to_config({"iou_weight": weight})
    assert other.dice_weight == pytest.approx(1 - weight, abs=1e-9)


def test_cross_entropy_stands_relative_to_dice_and_iou():
    config = space_of({"dice_weight": {"low": 0, "high": 1}}, bce_weight=1.0).to_config({"dice_weight": 0.4})
    assert (config.dice_weight, config.iou_weight, config.bce_weight) == pytest.approx((0.2, 0.3, 0.5))


def test_the_key_tells_seeds_apart_only_when_asked():
    space = space_of({"batch_size": [8, 16]})
    assert space.key({"batch_size": 8}) == space.key({"batch_size": 8})
    assert space.key({"batch_size": 8}, seed=1) != space.key({"batch_size": 8}, seed=2)


def test_size_and_cells_count_conditional_cells_once():
    space = space_of({**CONDITIONAL, "momentum": {"choices": [0.8, 0.9], "when": {"optimiser": "sgd"}}})
    cells = list(space.cells())
    assert space.size() == len(cells) == 4  # mobilenet; vgg19 with adam, with sgd 0.8, with sgd 0.9
    assert all(space.contains(params) for params in cells)
    assert len({space.key(params) for params in cells}) == 4


def test_a_continuous_space_is_endless():
    space = space_of({"learning_rate": {"low": 1e-4, "high": 1e-3}})
    assert space.size() is None
    with pytest.raises(ValueError, match="learning_rate is a range without step"):
        next(space.cells())


def test_a_large_finite_space_is_counted_without_walking_it():
    axes = {name: [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9] for name in ("brightness", "contrast", "threshold")}
    axes |= {"weight_decay": [i / 100 for i in range(50)], "rotation_degrees": list(range(90))}
    assert space_of(axes).size() == 9**3 * 50 * 90


def test_the_baselines_are_the_papers_setting_for_every_encoder():
    space = space_of(
        {
            "encoder": list(PAPER_ENCODERS),
            "dice_weight": {"low": 0, "high": 1},
            "batch_size": [4, 8, 16],
            "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
            "optimiser": ["sgd", "adam"],
            "momentum": {"low": 0.8, "high": 0.99, "when": {"optimiser": "sgd"}},
        }
    )
    baselines = space.baselines()
    assert [params["encoder"] for params in baselines] == list(PAPER_ENCODERS)
    for params in baselines:
        assert space.contains(params)
        assert space.to_config(params) == TrialConfig(encoder=params["encoder"])


def test_a_baseline_takes_the_nearest_value_where_the_space_lacks_the_papers():
    space = space_of({"encoder": ["vgg19"], "batch_size": [16, 32], "dice_weight": {"low": 0.6, "high": 1.0}})
    assert space.baselines() == [{"encoder": "vgg19", "batch_size": 16, "dice_weight": 0.6}]


def test_a_baseline_takes_the_lowest_of_a_log_range_where_the_papers_value_is_0():
    space = space_of({"encoder": ["vgg19"], "weight_decay": {"low": 1e-5, "high": 1e-2, "log": True}})
    assert space.baselines() == [{"encoder": "vgg19", "weight_decay": 1e-5}]


def test_a_circle_of_conditions_is_an_error():
    space = space_of(
        {
            "optimiser": {"choices": ["adam"], "when": {"schedule": "step"}},
            "schedule": {"choices": ["step"], "when": {"optimiser": "adam"}},
        }
    )
    with pytest.raises(ValueError, match="circle"):
        _ = space.order


@pytest.mark.parametrize(
    "axis",
    [
        {"low": 1, "high": 0},
        {"low": 0},
        {"low": 0, "high": 1, "log": True},
        {"low": 1, "high": 2, "log": True, "step": 0.5},
        {"low": 0, "high": 1, "step": 2},
        {"low": 0, "high": float("inf")},
        {"choices": [1], "low": 0},
        [],
        [1, 1],
        [[1], [2]],
        0.5,
    ],
)
def test_an_axis_that_cannot_be_searched_is_refused(axis: object):
    with pytest.raises(ValidationError):
        Axis.model_validate(axis)


def test_axes_survive_writing_and_reading():
    for axis in ([1, 2], {"low": 1, "high": 2, "log": True}, {"low": 0, "high": 1, "step": 0.5}, *CONDITIONAL.values()):
        first = Axis.model_validate(axis)
        assert Axis.model_validate(first.model_dump(mode="json")) == first


def test_booleans_and_numbers_are_told_apart():
    space = space_of({"channels_last": [True, False]})
    assert space.contains({"channels_last": True})
    assert not space.contains({"channels_last": 1})


def test_every_setting_of_a_trial_but_epochs_and_seed_can_be_an_axis():
    assert set(TrialConfig.model_fields) - set(AXES) == {"epochs", "seed"}
    axes = {name: [TrialConfig.model_fields[name].default] for name in AXES}
    assert space_of(axes).to_config({name: axis[0] for name, axis in axes.items()}, epochs=10) == TrialConfig()


def test_order_puts_conditions_first_and_keeps_the_file_otherwise():
    for names in itertools.permutations(CONDITIONAL):
        order = space_of({name: CONDITIONAL[name] for name in names}).order
        assert order.index("encoder") < order.index("optimiser") < order.index("momentum")
