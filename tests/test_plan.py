"""How a batch divides into steps, processes and micro-batches."""

import pytest

from tests.helpers import plan_for
from train.config.compose import compose
from train.errors import UserError


def test_the_32k_row_takes_39_steps_an_epoch_and_drops_3215_images():
    plan = plan_for(compose("batch=32k", "data=imagenet"), 1_281_167, 8)
    assert (plan.steps_per_epoch, plan.dropped, plan.accumulation) == (39, 3215, 64)


@pytest.mark.parametrize("count", range(1, 9))
def test_accumulation_and_processes_make_up_the_batch(count):
    c = compose("batch=8k", "data=imagenet")
    if 128 % count:
        with pytest.raises(UserError, match="nproc="):
            plan_for(c, 1_281_167, count)
    else:
        plan = plan_for(c, 1_281_167, count)
        assert plan.micro * plan.accumulation * plan.processes == 8192
