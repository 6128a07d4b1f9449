import pytest
import torch
from torch import nn

from macattr.sweep.probes import Site, probing


class Branches(nn.Module):
    """A layer with two outputs in a dict, next to things that are no tensors."""

    def forward(self, x):
        return {"double": 2 * x, "name": "branches", "triple": [3 * x, None]}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.branches = nn.Linear(2, 2), Branches()

    def forward(self, x):
        out = self.branches(self.first(self.first(x)))
        return out["double"] + out["triple"][0]


@pytest.fixture
def net():
    return Net()


def visits(net, **options):
    seen = []
    with probing(dict(net.named_children()), lambda site, tensor: seen.append((site, tensor)) or tensor, **options):
        net(torch.rand(1, 2))
    return seen


def test_tensors_are_visited_in_the_order_of_execution_with_call_and_item(net):
    assert [site for site, _ in visits(net)] == [
        Site("first", 0, 0), Site("first", 1, 0), Site("branches", 0, 0), Site("branches", 0, 1)
    ]  # fmt: skip


def test_inputs_are_visited_instead_of_outputs_on_request(net):
    outputs, inputs = visits(net), visits(net, at_input=True)
    assert [site for site, _ in inputs] == [Site("first", 0, 0), Site("first", 1, 0), Site("branches", 0, 0)]
    assert inputs[1][1].shape == outputs[0][1].shape


def test_what_the_visitor_returns_takes_the_place_of_the_tensor(net):
    def zero_the_triple(site, tensor):
        return torch.zeros_like(tensor) if site.item else tensor

    x = torch.rand(1, 2)
    with probing({"branches": net.branches}, zero_the_triple):
        got = net(x)
    torch.testing.assert_close(got, 2 * net.first(net.first(x)))


def test_an_idle_visitor_leaves_the_output_object_alone():
    class Same(nn.Module):
        def forward(self, x):
            return marker

    marker, layer = {"x": torch.ones(1)}, Same()
    with probing({"layer": layer}, lambda _, tensor: tensor):
        assert layer(torch.ones(1)) is marker


def test_hooks_are_removed_afterwards(net):
    visits(net)
    assert not net.first._forward_hooks
    assert not net.first._forward_pre_hooks


def test_hooks_are_removed_after_an_error(net):
    def fail(site, tensor):
        raise RuntimeError("stop here")

    with pytest.raises(RuntimeError, match="stop here"), probing({"first": net.first}, fail):
        net(torch.rand(1, 2))
    assert not net.first._forward_hooks


def test_hooks_of_others_stay(net):
    net.first.register_forward_hook(lambda *_: None)
    visits(net)
    assert len(net.first._forward_hooks) == 1


@pytest.mark.parametrize(
    ("site", "text"),
    [(Site("a", 0, 0), "a"), (Site("a", 0, 1), "a[1]"), (Site("b", 2, 1), "b (call 3)[1]")],
    ids=["plain", "item", "both"],
)
def test_sites_read_as(site, text):
    assert str(site) == text
