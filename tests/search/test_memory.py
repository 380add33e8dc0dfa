"""Memory and operations that are predicted agree with what is known of the models, and with a real step."""

from itertools import accumulate

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from search.bill.memory import flops_per_image, parameters, predict_memory
from trainables.config import TrialConfig
from trainables.net.architecture import Architecture
from trainables.net.models import build_model

SIZE_PX = 64


def predict(precision: str = "fp32", workers: int = 1, **settings):
    config = TrialConfig(encoder="mobilenet", **settings)
    return predict_memory(config, image_size_px=SIZE_PX, workers=workers, precision=precision)


def test_parameters_are_those_of_the_paper():
    assert parameters(Architecture(encoder="mobilenet", image_size_px=224)) == 8_312_465


def test_weights_gradients_and_running_averages_follow_from_the_parameters():
    trainable = 4 * 8_312_465
    memory = predict()
    assert 4 * 8_336_337 <= memory.weights < 4 * 8_336_337 + 1000  # the counters of batch norm beside Keras' total
    assert memory.gradients == trainable
    assert memory.optimiser == 2 * trainable
    assert predict(optimiser="sgd").optimiser == trainable
    assert predict(optimiser="sgd", momentum=0.0).optimiser == 0


@pytest.mark.slow
def test_the_step_grows_with_the_batch_and_shrinks_with_workers_and_accumulation():
    steps = [predict(batch_size=batch).step for batch in (8, 16, 32)]
    assert steps[0] < steps[1] < steps[2]
    assert predict(batch_size=32, accumulation=2).step < steps[2]
    shared, alone = predict(batch_size=32, workers=2).step, steps[1]
    assert alone < shared < alone + 1.1 * 4 * 8_312_465  # DDP's buckets stay in the forward pass


@pytest.mark.slow
def test_mixed_precision_needs_less():
    mixed = predict("bf16", batch_size=32)
    assert mixed.step < 0.7 * predict(batch_size=32).step
    assert predict("fp16", batch_size=32) == mixed


@pytest.mark.parametrize("encoder", ["tu-test_convnext", "tu-test_efficientnet"])
def test_mixed_precision_is_predicted_for_encoders_whose_constructors_read_numbers(encoder: str):
    config = TrialConfig(encoder=encoder, decoder="linknet")
    mixed, full = (predict_memory(config, image_size_px=SIZE_PX, precision=p) for p in ("bf16", "fp32"))
    assert mixed.weights == full.weights
    assert 0.3 * full.step < mixed.step < full.step


def test_an_average_of_the_weights_needs_their_memory_once_more():
    assert predict(ema_decay=0.99).peak == predict().peak + predict().weights


def test_a_precision_of_the_configuration_overrides_the_pools():
    config = TrialConfig(encoder="mobilenet", batch_size=32, precision="fp32")
    assert predict_memory(config, image_size_px=SIZE_PX, precision="bf16") == predict(batch_size=32)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_real_step_needs_what_was_predicted(precision: str):
    config = TrialConfig(encoder="mobilenet", batch_size=16)
    predicted = predict_memory(config, image_size_px=SIZE_PX, precision=precision)
    model = build_model(Architecture(encoder=config.encoder, decoder=config.decoder, image_size_px=SIZE_PX))
    image_BCHW = torch.rand(16, 1, SIZE_PX, SIZE_PX)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision != "fp32"):
            logits_BCHW = model(image_BCHW)
        torch.sigmoid(logits_BCHW.float()).mean().backward()
    events = profiled.profiler.kineto_results.events()
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    assert max(accumulate(change for _, change in changes)) == pytest.approx(predicted.step, rel=0.1)


def test_operations_are_those_of_the_models_table():
    forward, both = flops_per_image(Architecture(encoder="seresnet50", image_size_px=224))
    assert forward / 1e9 == pytest.approx(15.8, rel=0.02)
    assert both / 1e9 == pytest.approx(47.2, rel=0.02)
