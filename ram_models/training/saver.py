"""Saving a run and continuing it from its last checkpoint."""

__all__ = ["Saver"]

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from macattr.user_warnings import warn_user
from ram_models.training.config import FREE, Run
from ram_models.training.run_folder import (
    flat_settings,
    latest_checkpoint,
    refuse_other_settings,
    save_checkpoint,
    save_weights,
)
from ram_models.training.state import State


@dataclass(frozen=True)
class Saver:
    """Checkpoints and weights in the folder of a run.

    Args:
        out: Folder of the run.
        keep: Number of checkpoints to keep.
        settings: Settings that must be the same when the run continues.
        data_id: Fingerprint of the images.
    """

    out: Path
    keep: int
    settings: Mapping[str, str]
    data_id: str

    @classmethod
    def of(cls, run: Run, data_id: str) -> "Saver":
        """The saver of a run.

        Args:
            run: The recipe's configuration.
            data_id: Fingerprint of the images.
        """
        settings = {name: value for name, value in flat_settings(run).items() if not name.startswith(FREE)}
        return cls(out=run.out, keep=run.log.keep, settings=settings, data_id=data_id)

    def resume(self, state: State) -> str | None:
        """Put the last checkpoint into the state.

        Args:
            state: State of a run before its first step.

        Returns:
            Content of metrics.csv in that checkpoint; None if there are no checkpoints.

        Raises:
            ValueError: If the checkpoint was made with other settings, or all checkpoints are damaged.

        Warns:
            UserWarning: If the run began with other images.
        """
        stored = latest_checkpoint(self.out / "checkpoints")
        if stored is None:
            return None
        refuse_other_settings(stored["settings"], self.settings, self.out)
        if stored["data"] != self.data_id:
            warn_user("the run began with other images; it continues with these.")
        state.load(stored)
        metrics: str = stored["metrics"]
        return metrics

    def save(self, state: State) -> None:
        """Write a checkpoint with the state and metrics.csv; every process must call it.

        Args:
            state: State after a step.
        """
        content = state.to_dict() | {"settings": dict(self.settings), "data": self.data_id}
        if state.accelerator.is_main_process:
            content["metrics"] = (self.out / "metrics.csv").read_text()
            save_checkpoint(content, self.out / "checkpoints", state.step, self.keep)

    def finish(self, state: State) -> None:
        """Write weights.safetensors.

        Args:
            state: State after the last step.
        """
        if state.accelerator.is_main_process:
            save_weights(state.result, self.out / "weights.safetensors", self.settings)
