"""Running statistics on several ranks."""

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
        ranks = [RunningStatistics(model, World(rank, 3)) for rank, model in enumerate(models)]
        for rank, (model, statistics) in enumerate(zip(models, ranks, strict=True)):
            with statistics.one_step():
                for x in micro_batches[2 * rank : 2 * rank + 2]:
                    model(x + step)
        sums = [torch.stack(shares).sum(0) for shares in zip(*(s.part(2) for s in ranks), strict=True)]
        for statistics in ranks:
            statistics.combine(sums, 2)
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
    with pytest.raises(InterruptedError), RunningStatistics(model, World(rank, 2)).one_step():
        model(torch.randn(4, 3, 2, 2))
        raise InterruptedError
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
