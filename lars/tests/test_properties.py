"""LARS on numbers of every size: what must hold for any weights and gradients."""

import pytest
import torch

from lars import LARS

pytest.importorskip("hypothesis", reason="pip install hypothesis")
from hypothesis import assume, given, settings, strategies  # noqa: E402

# a loaded machine is not a failure
settings.register_profile("lars", deadline=None)
settings.load_profile("lars")


def one_step(weights, grads, groups=None, **numbers):
    params = [torch.nn.Parameter(torch.tensor(w, dtype=torch.float64)) for w in weights]
    sgd = torch.optim.SGD([{"params": [params[i] for i in g]} for g in groups] if groups else params, **numbers)
    optimizer = LARS(sgd, eps=0.0)
    for p, g in zip(params, grads, strict=True):
        p.grad = torch.tensor(g, dtype=torch.float64)
    optimizer.step()
    return [p.detach() for p in params]


numbers_of_size = strategies.floats(-1e3, 1e3).filter(lambda x: x == 0 or abs(x) > 1e-6)


vectors = strategies.lists(strategies.tuples(numbers_of_size, numbers_of_size), min_size=1, max_size=6)


@given(vectors, strategies.floats(1e-20, 1e20))
def test_the_gradients_scale_cancels_without_weight_decay(pairs, scale):
    w, g = zip(*pairs, strict=True)
    assume(any(w) and any(g))
    (a,), (b,) = (one_step([w], [[c * x for x in g]], lr=2.0) for c in (1.0, scale))
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9 * max(map(abs, w)))


@given(strategies.lists(vectors, min_size=2, max_size=5), strategies.randoms())
def test_tensors_do_not_depend_on_one_another_or_on_their_groups(tensors_, random):
    weights, grads = zip(*[zip(*pairs, strict=True) for pairs in tensors_], strict=True)
    together = one_step(weights, grads, lr=0.5, momentum=0.9, weight_decay=0.1)
    order = list(range(len(weights)))
    random.shuffle(order)
    cut = random.randint(1, len(order) - 1)
    split = one_step(weights, grads, [order[:cut], order[cut:]], lr=0.5, momentum=0.9, weight_decay=0.1)
    assert all(torch.equal(a, b) for a, b in zip(together, split, strict=True))


@given(vectors, strategies.floats(0, 0.5))
def test_a_step_is_finite_and_no_longer_than_lr_times_the_trusted_length(pairs, decay):
    w, g = zip(*pairs, strict=True)
    assume(any(w) and any(g))
    (after,) = one_step([w], [g], lr=3.0, weight_decay=decay)
    moved = (after - torch.tensor(w, dtype=torch.float64)).norm()
    assert moved <= 3.0 * 0.001 * torch.tensor(w, dtype=torch.float64).norm() * (1 + 1e-9)
