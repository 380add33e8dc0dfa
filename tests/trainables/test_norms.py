"""python -m pytest tests/trainables/test_norms.py: statistics of batch norms, made anew."""

import torch
from torch import nn

from tests.trainables.fakes import disc_data, small_config, train
from trainables.step.norms import recalibrate
from trainables.trial import TrialSession


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3, momentum=0.01), nn.Dropout(0.5), nn.Conv2d(3, 1, 3))


def test_statistics_are_those_of_the_images_under_the_weights_as_they_are() -> None:
    net, batches = model(), list(torch.rand(3, 4, 1, 9, 9))
    net[1].running_mean.fill_(7)
    recalibrate(net, batches)
    seen = [net[0](batch).detach() for batch in batches]
    mean = torch.stack([features.mean((0, 2, 3)) for features in seen]).mean(0)
    variance = torch.stack([features.var((0, 2, 3)) for features in seen]).mean(0)
    assert torch.allclose(net[1].running_mean, mean, atol=1e-6)
    assert torch.allclose(net[1].running_var, variance, atol=1e-6)
    assert net[1].momentum == 0.01


def test_no_weight_changes_and_no_random_number_is_drawn() -> None:
    net = model().train()
    before = [parameter.clone() for parameter in net.parameters()]
    state = torch.random.get_rng_state()
    recalibrate(net, [torch.rand(4, 1, 9, 9, generator=torch.Generator().manual_seed(1))])
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
    assert not any(module.training for module in net.modules())


def test_what_is_learnt_does_not_depend_on_the_statistics() -> None:
    losses = []
    for statistics in ("recalibrated", "running"):
        history = train(small_config(norm_statistics=statistics))
        losses.append([row.train_loss for row in history])
    assert losses[0] == losses[1]


def test_a_short_trial_is_judged_by_the_weights_that_it_has() -> None:
    """By running statistics its measures are those of a network between the first weights and the last."""
    loss = {}
    for statistics in ("recalibrated", "running"):
        config = small_config(encoder="mobilenet", decoder="unet", epochs=2, norm_statistics=statistics)
        session = TrialSession(config, disc_data(train=24))
        loss[statistics] = [session.train_epoch().val_loss for _ in range(2)][-1]
        session.close()
    assert loss["recalibrated"] < loss["running"] - 0.1
