"""The training loop that every recipe shares; it can be stopped and resumed at any step."""

__all__ = ["fit", "learning_rate", "optimise", "start"]

import math
import warnings
from collections.abc import Callable, Iterable, Iterator

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState
from accelerate.utils import set_seed
from torch import Tensor, nn

from ram_models.training.batches import Batch, Crops, UnreadableData, make_loader, read
from ram_models.training.config import FREE, Compute, Optim, Run
from ram_models.training.losses import Loss
from ram_models.training.run_folder import (
    Journal,
    flat_settings,
    latest_checkpoint,
    record_start,
    refuse_other_settings,
    save_checkpoint,
    save_weights,
)
from ram_models.training.state import State
from ram_models.training.stop_requests import stop_requests
from ram_models.training.validation import Validation, validate


def start(compute: Compute, seed: int) -> Accelerator:
    """The devices and processes that ``accelerate launch`` or ``torchrun`` gave; seeds all random numbers.

    Raises:
        ValueError: If the device cannot compute in this precision.
    """
    cpu = compute.cpu or not torch.accelerator.is_available()
    if cpu and compute.precision == "fp16":  # without the scaling of the loss, which exists on GPUs, it underflows
        raise ValueError("`compute.precision` fp16 needs a GPU, and there is none (or `compute.cpu`): choose bf16.")
    AcceleratorState._reset_state()  # the precision belongs to a run, not to the process
    accelerator = Accelerator(
        # without this, processes of torchrun on a machine without GPU would not know of each other
        cpu=cpu,
        mixed_precision="no" if compute.precision == "fp32" else compute.precision,
        gradient_accumulation_steps=compute.accumulate,
        # the mask token of RAM networks never gets a gradient: the mean colour is passed in its place
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    set_seed(seed)
    return accelerator


def learning_rate(step: int, optim: Optim) -> float:
    """Learning rate of optimiser step ``step`` (from 0): linear warm-up, then cosine."""
    if step < optim.warmup:
        return optim.lr * (step + 1) / optim.warmup
    progress = (step - optim.warmup) / max(1, optim.steps - optim.warmup)
    return optim.lr_final + (optim.lr - optim.lr_final) * 0.5 * (1 + math.cos(math.pi * progress))


def optimise(state: State, batches: Iterable[Batch], loss: Loss, optim: Optim) -> Iterator[None]:
    """Train on the batches; comes back after every optimiser step, when all passes of the step are done.

    Args:
        state: Network, optimiser, average; changed in place.
        batches: One for each pass.
        loss: Mean loss of the network on a batch.
        optim: Optimiser and schedule.
    """
    accelerator, parts = state.accelerator, []
    for batch in batches:
        with accelerator.accumulate(state.trained):
            for group in state.optimiser.param_groups:
                group["lr"] = learning_rate(state.step, optim) * group["relative_lr"]
            value = loss(state.trained, batch)
            accelerator.backward(value)
            if accelerator.sync_gradients and optim.clip is not None:
                accelerator.clip_grad_norm_(state.network.parameters(), optim.clip)
            state.optimiser.step()
            state.optimiser.zero_grad()
        parts.append(value.detach())
        if accelerator.sync_gradients:
            if state.average is not None:
                state.average.update_parameters(state.network)
            state.losses.append(accelerator.reduce(torch.stack(parts).mean(), "mean"))
            state.step += 1
            parts.clear()
            yield


def fit(
    network: nn.Module,
    crops: Crops,
    loss: Loss,
    validation: Validation,
    run: Run,
    accelerator: Accelerator,
    data_id: str,
    train_mode: Callable[[nn.Module], nn.Module] = nn.Module.train,
) -> None:
    """Train, or continue, the parameters that require a gradient; ``weights.safetensors`` is written at the end.

    A run that is killed at any time and started again ends with the weights, the optimiser and the metrics.csv that it
    would have had, bit by bit (CPU, one process, one thread, same versions).

    Args:
        network: On the CPU.
        crops: All items of the run in their order; see :func:`crop_numbers`.
        loss: Mean loss of the network on a batch; the mean of those of parts of a batch must be that of the batch.
        validation: Held-out crops.
        run: The recipe's configuration.
        accelerator: From :func:`start`.
        data_id: Fingerprint of the data, to notice that they changed.
        train_mode: Sets the network to training mode; that of a mask keeps the statistics of frozen layers.

    Raises:
        ValueError: If an image cannot be read (the finished steps are saved), the loss is not finite, or a checkpoint
            in the folder has other settings.
        OSError: If a file cannot be written.

    Warns:
        UserWarning: If the images are not those that the run began with.
    """
    optim, log = run.optim, run.log
    settings = {name: value for name, value in flat_settings(run).items() if not name.startswith(FREE)}
    run.out.mkdir(parents=True, exist_ok=True)
    state = State.begin(train_mode(network), optim, accelerator)
    set_seed(run.seed, device_specific=True)  # so that processes drop different paths of a stochastic network
    stored, metrics = latest_checkpoint(run.out / "checkpoints"), None
    if stored is not None:
        refuse_other_settings(stored["settings"], settings, run.out)
        if stored["data"] != data_id:
            warnings.warn("the images are not those that the run began with; it goes on with these.", stacklevel=2)
        state.load(stored)
        metrics = stored["metrics"]
        stored.clear()  # as large as all that is trained
    journal = Journal(
        run.out, [f"psnr_{name}" for name in validation.names], metrics, state.step, optim.steps, optim.batch_size,
        log.tensorboard, accelerator.is_main_process,
    )  # fmt: skip
    if accelerator.is_main_process:
        used = {"processes": accelerator.num_processes, "device": str(accelerator.device), "seed": run.seed}
        record_start(run.out, run, state.step, used | {"threads": torch.get_num_threads()})

    def save() -> None:
        content = state.to_dict() | {"settings": settings, "data": data_id}
        if accelerator.is_main_process:
            content["metrics"] = journal.metrics.read_text()
            save_checkpoint(content, run.out / "checkpoints", state.step, log.keep)

    def report(validated: bool) -> None:
        values, picture = {"loss": state.mean_loss(), "lr": learning_rate(state.step - 1, optim)}, None
        if accelerator.is_main_process and validated:
            with accelerator.autocast():
                psnr, picture = validate(state.result.eval(), validation, optim.batch_size, accelerator.device)
            values |= psnr
            train_mode(network)
        journal.row(state.step, values, picture)
        state.losses.clear()

    batches = read(make_loader(crops, run, state.step, accelerator), accelerator.device)
    with journal, stop_requests() as received:
        try:
            for _ in optimise(state, batches, loss, optim):
                journal.step()
                stopping, last = anywhere(accelerator, bool(received)), state.step == optim.steps
                validated = last or state.step % log.validate_every == 0
                if validated or state.step % log.every == 0:
                    report(validated)
                if last or stopping or state.step % log.save_every == 0:
                    save()
                if stopping:
                    break
        except UnreadableData:
            if accelerator.num_processes == 1:  # the others could not be waited for
                save()
            raise
    if state.step < optim.steps:
        accelerator.print(f"stopped after step {state.step} of {optim.steps}; the same command goes on from there")
    elif accelerator.is_main_process:
        save_weights(state.result, run.out / "weights.safetensors", settings)
    accelerator.wait_for_everyone()


def anywhere(accelerator: Accelerator, claim: bool) -> bool:
    """Whether it is true in any of the processes; they wait for each other."""
    if accelerator.num_processes == 1:
        return claim
    count: Tensor = accelerator.reduce(torch.tensor(float(claim), device=accelerator.device), "sum")
    return bool(count > 0)
