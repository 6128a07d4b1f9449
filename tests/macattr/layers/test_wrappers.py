import pytest
import torch
from torch import nn

from macattr.layers.resolve import resolve_layers
from macattr.selection.trainable import TrainableMask


def wrapped(kind: str, network: nn.Module) -> nn.Module:
    """A network inside of one of torch's wrappers."""
    if kind == "parallel":
        return nn.DataParallel(network)
    if kind == "compiled":
        return torch.compile(network, backend="eager")
    if kind == "a compiled part":
        network[0] = torch.compile(network[0], backend="eager")
        return network
    return nn.DataParallel(torch.compile(network, backend="eager"))


@pytest.mark.parametrize("kind", ["parallel", "compiled", "a compiled part", "both"])
def test_wrappers_of_torch_leave_no_trace_in_names(kind):
    network = wrapped(kind, nn.Sequential(nn.Sequential(nn.Linear(2, 2)), nn.Linear(2, 1)))
    full = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    assert list(resolve_layers(network)) == ["0.0", "1"]
    assert list(resolve_layers(network, full)) == ["0.0", "1"]
    assert TrainableMask(("0.0",)).apply(network).trained == 6


def test_a_prefix_of_ones_own_is_taken_off():
    network = nn.ModuleDict({"net": nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1)), "extra": nn.Linear(1, 1)})
    assert (
        list(resolve_layers(network, prefix="net"))
        == list(resolve_layers(network, None, "net."))
        == ["0", "1", "extra"]
    )
    assert list(resolve_layers(network, ["net.0", "1"], "net")) == ["0", "1"]
    with pytest.raises(ValueError, match="`prefix` = 'body': no module is called so; the model holds 'net', 'extra'"):
        resolve_layers(network, None, "body")


def test_a_prefix_that_merges_two_names_is_refused():
    network = nn.ModuleDict({"net": nn.ModuleDict({"extra": nn.Linear(2, 2)}), "extra": nn.Linear(1, 1)})
    with pytest.raises(ValueError, match="`prefix` = 'net' gives two modules the name 'extra'"):
        resolve_layers(network, None, "net")
