"""A trial goes to the pool that its rule says, if it fits there; where it fits nowhere, that is said with figures."""

import pytest

from cluster.pools import SHIPPED, Pool
from search.bill.placement import Fit, PlacementError, choose_pool
from search.bill.shapes import networks, shapes
from search.settings.sections import Placement
from search.settings.space import Axis, Space
from trainables.config import PAPER_ENCODERS, TrialConfig

PAPER_RULE = Placement(rule="by_size", up_to_million={"t4x2": None, "p100": 20})
PAPER_POOLS = [SHIPPED[name].model_copy(update={"gpu_memory_gb": None}) for name in ("p100", "t4x2")]


def place(pools: list[Pool], rule: Placement, *, size_px: int = 64, **settings) -> str:
    config = TrialConfig(**{"encoder": "mobilenet", **settings})
    return choose_pool(config, pools, rule, image_size_px=size_px).name


def gpu(name: str, memory_gb: float, **more) -> Pool:
    return Pool(name=name, gpus_per_worker=1, gpu_memory_gb=memory_gb, **{"tflops": 5, **more})


def test_one_image_is_too_few_where_batch_norm_sees_one_pixel() -> None:
    split = Pool(name="two", workers=2)
    assert "needs two images" in Fit(split, TrialConfig(encoder="mobilenet", batch_size=2), 32).obstacle
    assert Fit(split, TrialConfig(encoder="mobilenet", batch_size=2), 64).obstacle == ""
    assert Fit(split, TrialConfig(encoder="mobilenet", batch_size=4), 32).obstacle == ""
    assert "needs two images" in Fit(split, TrialConfig(encoder="mobilenet", batch_size=8, accumulation=4), 32).obstacle


def test_the_papers_rule_puts_small_models_on_p100_and_large_ones_on_two_t4():
    placed = {encoder: place(PAPER_POOLS, PAPER_RULE, encoder=encoder) for encoder in PAPER_ENCODERS}
    assert placed == {
        "seresnet50": "t4x2",
        "inceptionv3": "t4x2",
        "vgg19": "t4x2",
        "densenet121": "p100",
        "mobilenet": "p100",
    }


def test_by_size_goes_on_to_the_next_pool_where_the_memory_does_not_suffice():
    pools = [gpu("small", 1.2), gpu("large", 40)]
    rule = Placement(rule="by_size", up_to_million={"small": 20, "large": None})
    assert place(pools, rule, batch_size=8) == "small"
    assert place(pools, rule, batch_size=512) == "large"


def test_a_model_above_every_threshold_is_refused():
    rule = Placement(rule="by_size", up_to_million={"p100": 5})
    with pytest.raises(PlacementError, match=r"mobilenet with unet \(8.31M parameters\).*p100 up to 5"):
        place(PAPER_POOLS, rule)


def test_auto_takes_the_cheapest_pool_that_fits():
    slow = gpu("slow", 40, usd_per_hour=1.0, tflops=1)
    fast = gpu("fast", 40, usd_per_hour=3.0, tflops=10)
    tiny = gpu("tiny", 0.9, usd_per_hour=0.01)
    auto = Placement(rule="auto")
    assert place([slow, fast, tiny], auto, batch_size=64) == "fast"  # three times the price, ten times the rate
    assert place([slow, fast.model_copy(update={"usd_per_hour": 20.0})], auto) == "slow"


def test_auto_takes_the_fastest_where_nothing_costs():
    assert place([gpu("slow", 40, tflops=1), gpu("fast", 40, tflops=2)], Placement(rule="auto")) == "fast"


def test_auto_leaves_out_pools_whose_workers_cannot_share_the_batch():
    pools = [Pool(name="three", workers=3), Pool(name="one")]
    assert place(pools, Placement(rule="auto"), batch_size=8) == "one"
    assert place(pools, Placement(rule="auto"), batch_size=9) == "three"


def test_what_fits_nowhere_is_told_with_need_and_capacities():
    pools = [gpu("a", 1.0), gpu("b", 2.0)]
    with pytest.raises(
        PlacementError, match=r"batch 256: fits no pool \(a: needs \d\.\d GB, has 0.2 GB; b: needs"
    ) as caught:
        place(pools, Placement(rule="auto"), batch_size=256, size_px=128)
    assert "smaller batch_size" in str(caught.value)


def test_main_memory_is_checked_where_a_cpu_pool_states_it():
    config = TrialConfig(encoder="mobilenet")
    assert not Fit(Pool(name="cpu"), config, 64).obstacle
    assert "needs" in Fit(Pool(name="cpu", memory_gb=0.65), config, 64).obstacle


def test_shapes_are_the_combinations_that_matter_and_no_more():
    axes = {
        "encoder": ["mobilenet", "vgg19"],
        "batch_size": {"choices": [8, 16], "when": {"schedule": "cosine"}},
        "schedule": ["constant", "cosine", "linear"],
        "learning_rate": {"low": 1e-4, "high": 1e-2},
        "brightness": [0.0, 0.1],
    }
    space = Space({name: Axis.model_validate(axis) for name, axis in axes.items()}, {"optimiser": "sgd"})
    found = [(c.encoder, c.batch_size, c.optimiser) for c in shapes(space)]
    assert sorted(found) == [(e, b, "sgd") for e in ("mobilenet", "vgg19") for b in (8, 16)]


def test_networks_show_each_value_of_each_setting_with_each_decoder():
    axes = {
        "encoder": ["mobilenet", "vgg19"],
        "decoder": ["unet", "fpn", "linknet"],
        "decoder_width": {"low": 0.5, "high": 2.0, "when": {"decoder": ["unet", "fpn"]}},
        "encoder_depth": [3, 4, 5],
        "image_size_px": [32, 64],
        "learning_rate": [1e-3, 1e-2],
    }
    space = Space({name: Axis.model_validate(axis) for name, axis in axes.items()})
    found = networks(space)
    assert len(found) == len({tuple(vars(config).values()) for config in found}) < 2 * 3 * 3 * 2 * 2
    for encoder in axes["encoder"]:
        for decoder in axes["decoder"]:
            own = [config for config in found if (config.encoder, config.decoder) == (encoder, decoder)]
            assert {config.encoder_depth for config in own} == {3, 4, 5}
            assert {config.image_size_px for config in own} == {32, 64}
            assert {config.decoder_width for config in own} == ({1.0} if decoder == "linknet" else {0.5, 2.0})
    assert {c.learning_rate for c in shapes(space)} == {1e-3}
    assert {tuple(getattr(c, n) for n in ("encoder", "decoder", "encoder_depth")) for c in shapes(space)} == {
        tuple(getattr(c, n) for n in ("encoder", "decoder", "encoder_depth")) for c in found
    }


def test_a_huge_space_is_not_walked_through():
    axes = {name: list(range(1, 40)) for name in ("batch_size", "accumulation")} | {
        "encoder": [f"tu-{i}" for i in range(100)],
        "encoder_depth": [3, 4, 5],
        "decoder": ["unet", "fpn"],
    }
    axes["accumulation"] = [1]
    space = Space({name: Axis.model_validate(axis) for name, axis in axes.items()})
    assert len(networks(space)) == 600
    assert sum(1 for _ in shapes(space)) <= 100_000
