"""Running statistics on several ranks."""

from unittest import mock

import pytest
import torch

from train.engine.batchnorm import RunningStatistics
from train.processes.world import World


def test_running_statistics_follow_the_micro_batches_in_global_order():
    """Against BatchNorm itself on one process, with unequal micro-batches so that order matters."""
    torch.manual_seed(0)
    micro_batches = [torch.randn(4, 3, 2, 2) * (i + 1) + i for i in range(6)]
    expected = torch.nn.BatchNorm2d(3)
    models = [torch.nn.BatchNorm2d(3) for _ in range(3)]
    for step in range(2):
        for x in micro_batches:
            expected(x + step)
        flats: list[torch.Tensor] = []
        with mock.patch.object(World, "total", lambda _, x, to=flats: to.append(x.clone())):
            for rank, model in enumerate(models):
                with RunningStatistics(model, World(rank, 3)).one_step(2):
                    for x in micro_batches[2 * rank : 2 * rank + 2]:
                        model(x + step)
        total = torch.stack(flats).sum(0)
        for model in models:
            model.running_mean.copy_(total[:3])
            model.running_var.copy_(total[3:])
    for model in models:
        torch.testing.assert_close(model.running_mean, expected.running_mean)
        torch.testing.assert_close(model.running_var, expected.running_var)
        assert model.num_batches_tracked == expected.num_batches_tracked == 12


@pytest.mark.parametrize("rank", [0, 1])
def test_a_step_that_is_dropped_leaves_the_statistics_as_they_were(rank: int):
    torch.manual_seed(0)
    model = torch.nn.BatchNorm2d(3)
    model(torch.randn(4, 3, 2, 2))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(InterruptedError), RunningStatistics(model, World(rank, 2)).one_step(2):
        model(torch.randn(4, 3, 2, 2))
        raise InterruptedError
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
