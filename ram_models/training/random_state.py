"""State of the random number generators of a process."""

__all__ = ["random_state", "restore_random_state"]

import json
import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def random_state() -> dict[str, Any]:
    """State of all random number generators of this process: torch, its CUDA devices, numpy, Python."""
    numpy_state = np.random.get_state(legacy=False)
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": json.dumps(numpy_state, default=np.ndarray.tolist),
        "python": random.getstate(),
    }


def restore_random_state(state: Mapping[str, Any]) -> None:
    """Put the random number generators back into a state from :func:`random_state`."""
    torch.set_rng_state(state["torch"])
    if len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    np.random.set_state(json.loads(state["numpy"]))
    random.setstate(state["python"])
