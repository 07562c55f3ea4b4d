"""Bounds of keys, checked where the keys are declared."""

import math
import re

import pytest

from train.config.compose import compose
from train.errors import UserError
from train.keys import Key, check_bounds, free_on_resume, leaves, result_settings, values


@pytest.mark.parametrize(
    ("key", "good", "bad", "said"),
    [
        (Key(least=0), 0, -1, "must not be negative"),
        (Key(least=1), 1, 0, "must be at least 1"),
        (Key(above=0), 0.1, 0, "must be above 0"),
        (Key(above=0, most=1), 1, 1.1, "must be at most 1"),
        (Key(least=0, below=1), 0.9, 1, r"must be in \[0, 1\)"),
        (Key(one_of=("a", "b")), "b", "c", "is not one of a, b"),
        (Key(ascending=True), [0, 2], [2, 2], "must be epochs in ascending order"),
        (Key(ascending=True), [3], "/root", "must be epochs in ascending order"),
        (Key(), 1e9, math.inf, "is not a finite number"),
        (Key(least=1), None, 0, "must be at least 1"),
    ],
)
def test_a_key_takes_what_is_within_its_bounds(key: Key, good: object, bad: object, said: str):
    assert key.problem(good) is None
    assert re.match(said, str(key.problem(bad)))


def test_what_may_change_on_resume_and_what_has_no_effect_are_two_things():
    config = compose("data=imagenet")
    free, settings = free_on_resume(config), result_settings(config)
    assert {"data.on_bad_image", "on_divergence"} <= free & settings.keys()
    assert {"nproc", "data.root", "log.layers_every_steps"} <= free - settings.keys()
    assert {"seed", "optimizer.lr"} <= settings.keys() - free


def test_every_number_of_a_configuration_has_bounds_or_is_derived_from_one_that_has():
    derived = {
        "batch.published",
        "batch.reference_micro",
        "data.batch_divisor",
        "data.micro",
        "data.size",
        "data.resize",
    }
    for name, value, key in (*leaves(compose()), *leaves(compose("data=imagenet"))):
        if isinstance(value, (int, float)) and not isinstance(value, bool) and name not in derived:
            assert (key.least, key.above) != (None, None) or name == "data.progressive.start", name


def test_the_first_value_out_of_bounds_is_named_with_its_key():
    config = compose()
    config.optimizer.momentum = 1.0  # type: ignore[attr-defined]
    with pytest.raises(UserError, match=r"^optimizer.momentum=1.0 must be in"):
        check_bounds(config)
    assert values(config)["optimizer.momentum"] == 1.0
