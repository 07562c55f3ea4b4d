"""Running statistics on several ranks."""

from unittest import mock

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
        worlds = [World(rank, 3) for rank in range(3)]
        statistics = [RunningStatistics(m, w) for m, w in zip(models, worlds, strict=True)]
        for rank, (model, stats) in enumerate(zip(models, statistics, strict=True)):
            stats.begin()
            for x in micro_batches[2 * rank : 2 * rank + 2]:
                model(x + step)
        with mock.patch.object(World, "total", lambda _, x, to=flats: to.append(x.clone())):
            for stats in statistics:
                stats.combine(2)
        total = torch.stack(flats).sum(0)
        for model in models:
            model.running_mean.copy_(total[:3])
            model.running_var.copy_(total[3:])
    for model in models:
        torch.testing.assert_close(model.running_mean, expected.running_mean)
        torch.testing.assert_close(model.running_var, expected.running_var)
        assert model.num_batches_tracked == expected.num_batches_tracked == 12
