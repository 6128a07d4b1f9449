import pytest
from torch import nn


@pytest.fixture
def net():
    block = nn.Sequential(nn.Conv2d(2, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 1))
    return nn.ModuleDict({"first": nn.Conv2d(1, 2, 3), "blocks": nn.ModuleList([block]), "norm": nn.LayerNorm(2)})
