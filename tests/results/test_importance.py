import numpy as np
import pandas as pd
import pytest

from results.importance import FEWEST_TRIALS, importance, searched_values


def frame(trials: int, *, seed: int = 0) -> pd.DataFrame:
    """Trials whose Dice is decided by the learning rate, and by nothing else that is searched."""
    rng = np.random.default_rng(seed)
    rate = 10 ** rng.uniform(-5, -2, trials)
    table = pd.DataFrame(
        {
            "status": "complete",
            "role": "search",
            "repeat_of": None,
            "learning_rate": rate,
            "encoder": rng.choice(["mobilenet", "vgg19"], trials),
            "batch_size": 8,
            "val_dice": 0.5 - 0.1 * (np.log10(rate) + 3.2) ** 2 + rng.normal(0, 0.01, trials),
        }
    )
    table.attrs["searched"] = ["learning_rate", "encoder", "batch_size"]
    table["searched"] = "learning_rate encoder batch_size"
    return table


def test_the_setting_that_decides_comes_first_and_the_shares_are_one_in_all() -> None:
    table = importance(frame(100), draws=8)
    assert list(table.name) == ["learning_rate", "encoder"]
    assert table.share.sum() == pytest.approx(1)
    assert table.share[0] > 0.8
    assert (table.low <= table.share).all() and (table.share <= table.high).all()
    assert table.attrs["trials"] == 100


def test_a_setting_with_one_value_or_under_a_condition_is_left_out_and_named() -> None:
    trials = frame(40)
    trials.loc[:9, "searched"] = "learning_rate batch_size"
    assert importance(trials, draws=2).attrs["left_out"] == ["encoder", "batch_size"]


def test_pruned_failed_repeated_and_final_trials_do_not_count() -> None:
    trials = frame(40)
    trials.loc[0, "status"], trials.loc[1, "status"] = "pruned", "failed"
    trials.loc[2, "repeat_of"], trials.loc[3, "role"] = "0001", "final"
    assert importance(trials, draws=2).attrs["trials"] == 36


@pytest.mark.parametrize("trials", [0, 1, FEWEST_TRIALS - 1])
def test_of_few_trials_nothing_is_said_and_why(trials: int) -> None:
    table = importance(frame(trials))
    assert table.empty
    assert f"{trials} complete trials" in table.attrs["why_empty"]


def test_equal_trials_have_no_importance() -> None:
    assert importance(frame(30).assign(val_dice=0.5)).empty


def test_the_same_trials_give_the_same_table() -> None:
    pd.testing.assert_frame_equal(importance(frame(30), draws=4), importance(frame(30), draws=4))


def test_searched_values_are_read_from_prefixed_columns_too() -> None:
    trials = pd.DataFrame({"param_learning_rate": [0.1, None], "param_encoder": ["a", "b"], "encoder": ["a", "b"]})
    names, values = searched_values(trials)
    assert names == ["learning_rate", "encoder"]
    assert values.learning_rate.isna().tolist() == [False, True]
