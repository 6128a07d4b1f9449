"""The table of docs/scaling.md for large language models, against networks without values."""

import re
from pathlib import Path

import pytest
import torch

from macattr.layers.resolve import resolve_layers
from macattr.paths.sums import StieltjesSum

transformers = pytest.importorskip("transformers")

PAGE = (Path(__file__).parents[2] / "docs" / "scaling.md").read_text(encoding="utf-8")
WORDS = 32_000
SHAPES = {"7 B": (4096, 11_008, 4096, 32), "70 B": (8192, 28_672, 1024, 80)}


def network(shape, layers):
    """A Llama on the meta device, with heads of 128 channels."""
    width, inner, key_values, _ = shape
    config = transformers.LlamaConfig(
        vocab_size=WORDS,
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=width // 128,
        num_key_value_heads=key_values // 128,
    )
    with torch.device("meta"):
        return transformers.LlamaForCausalLM(config).bfloat16().eval()


def count(model):
    """Parameters, and values that all layers return for one token."""
    returned = []
    for layer in resolve_layers(model).values():
        layer.register_forward_hook(lambda _, __, output: returned.append(output.numel()))
    model(input_ids=torch.zeros(1, 1, dtype=torch.long, device="meta"))
    return sum(weight.numel() for weight in model.parameters()), sum(returned)


@pytest.mark.parametrize("size", SHAPES)
def test_the_table_of_large_networks_is_that_of_llama(size):
    block, names = re.search(r"```python\n(def outputs.*?)```", PAGE, re.DOTALL), {}
    exec(block[1], names)
    shape = SHAPES[size]
    (weights, values), (more_weights, more_values) = (count(network(shape, layers)) for layers in (1, 2))
    assert [names["outputs"](*shape[:3], layers) for layers in (1, 2)] == [values, more_values]
    weights += (shape[3] - 1) * (more_weights - weights)
    values += (shape[3] - 1) * (more_values - values)
    kept = StieltjesSum("trapezoid").state_bytes(2 * values, torch.bfloat16) / 1e9
    row = re.search(rf"\| {size} \| (\d+) GB \| ([\d.]+) million \| ([\d.]+) GB \| (\d+) GB \|", PAGE)
    assert row.groups() == (
        f"{2 * weights / 1e9:.0f}", f"{values / 1e6:.2f}", f"{256 * kept:.2g}", f"{2048 * kept:.0f}",
    )  # fmt: skip
