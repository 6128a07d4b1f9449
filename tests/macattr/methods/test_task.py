"""Options are checked once, and mean what was plainly meant."""

import numpy as np
import pytest
import torch
from torch import nn

from macattr.methods.samples import Sample
from macattr.methods.task import Options, Task, Trial
from macattr.paths.presets import OFFICIAL

pytestmark = pytest.mark.usefixtures("as_users_run_it")


@pytest.mark.parametrize(
    ("given", "plain"),
    [
        ({"r": "0.5"}, {"r": 0.5}),
        ({"preset": "official"}, {"preset": OFFICIAL}),
        ({"n_steps": 4.0}, {"n_steps": 4}),
        ({"n_steps": np.int64(4)}, {"n_steps": 4}),
        ({"additional_forward_args": [1, 2]}, {"additional_forward_args": (1, 2)}),
        ({"orders": np.int32(2)}, {"orders": 2}),
    ],
    ids=lambda value: str(value)[:30],
)
def test_values_of_another_type_are_taken_as_meant(given, plain):
    assert Options(**given) == Options(**plain)


@pytest.mark.parametrize("orders", [[3, 1, 0, 2], (3, 1, 0, 2), np.array([[3, 1, 0, 2]]), torch.tensor([3, 1, 0, 2])])
def test_orders_may_be_lists_and_arrays_of_one_or_several(orders):
    task = Task(nn.Identity(), {}, Options(orders=orders))
    sample = Sample(torch.rand(1, 3, 2, 2), "a")
    assert task.order_count == 1
    assert Trial(task, sample).order.tolist() == [3, 1, 0, 2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"r": "half"}, "`r` must be a finite number, got 'half'"),
        ({"r": True}, "`r` must be a finite number, got True"),
        ({"delta": float("nan"), "gate": "sigmoid"}, "`delta` must be a finite number, got nan"),
        ({"memory_budget": float("nan")}, "`memory_budget` must be a positive number of bytes, got nan"),
        ({"n_steps": 2.5}, "`n_steps` must be a whole number, got 2.5"),
        ({"n_steps": True}, "`n_steps` must be a whole number, got True"),
        ({"n_steps": 10**9}, "`n_steps` must be at most 100,000, got 1,000,000,000"),
        ({"patch_size": 0}, "`patch_size` must be at least 1, got 0"),
        ({"internal_batch_size": 1.5}, "`internal_batch_size` must be a whole number, got 1.5"),
        ({"seed": -1}, "`seed` must be at least 0, got -1"),
        ({"seed": 2**70}, "`seed` must be at most 9223372036854775807"),
        ({"seed": "1"}, "`seed` must be a whole number, got '1'"),
        ({"preset": "papr"}, "`preset` must be a Preset or one of default, .*, got 'papr'"),
        ({"orders": 1.5}, "`orders` must be a number, a tensor"),
        ({"orders": torch.zeros(1, 2, 2)}, r"`orders` must have the shape \(orders, H\*W\), got \(1, 2, 2\)"),
        ({"gate": "hard"}, "`gate` must be one of fade, sigmoid, one_sided, got 'hard'"),
        ({"tag": "middle"}, "`tag` must be one of left, right, trapezoid"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_values_out_of_range_name_the_option(options, message):
    with pytest.raises(ValueError, match=message):
        Options(**options)


@pytest.mark.parametrize("returned", [None, [1, 0], "order"])
def test_a_function_that_returns_no_order_is_named(returned):
    trial = Trial(Task(nn.Identity(), {}, Options(orders=lambda image: returned)), Sample(torch.rand(1, 3, 1, 2), "a"))
    with pytest.raises(ValueError, match=r"the function `orders` must return a tensor \(H\*W,\), got .* for 'a'"):
        _ = trial.order
