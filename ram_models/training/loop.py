"""The training loop that every recipe shares; it can be stopped and resumed at any step."""

__all__ = ["fit", "start"]

import math
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState
from accelerate.utils import gather_object, set_seed
from torch import Tensor, nn

from macattr.atomic_files import sole_writer
from ram_models.training.batches import Batch, Crops, UnreadableData, make_loader, read
from ram_models.training.config import Compute, Optim, Run
from ram_models.training.losses import Loss
from ram_models.training.metrics_log import MetricsLog
from ram_models.training.run_folder import record_start
from ram_models.training.saver import Saver
from ram_models.training.state import State
from ram_models.training.stop_requests import stop_requests
from ram_models.training.validation import Validation, validate


def start(compute: Compute, seed: int) -> Accelerator:
    """Devices and processes from ``accelerate launch`` or ``torchrun``; also seeds all random numbers.

    Raises:
        ValueError: If the device cannot compute in this precision.
    """
    cpu = compute.cpu or not torch.accelerator.is_available()
    if cpu and compute.precision == "fp16":  # without the scaling of the loss, which exists on GPUs, it underflows
        raise ValueError("`compute.precision` fp16 needs a GPU, and there is none (or `compute.cpu`): choose bf16.")
    AcceleratorState._reset_state()  # the precision belongs to a run, not to the process
    accelerator = Accelerator(
        # otherwise the processes of torchrun on a machine without GPU would not find each other
        cpu=cpu,
        mixed_precision="no" if compute.precision == "fp32" else compute.precision,
        gradient_accumulation_steps=compute.accumulate,
        # the mask token of RAM networks never gets a gradient: the mean colour is passed in its place
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    set_seed(seed)
    return accelerator


def _learning_rate(step: int, optim: Optim) -> float:
    """Learning rate of optimiser step ``step`` (from 0): linear warm-up, then cosine."""
    if step < optim.warmup:
        return optim.lr * (step + 1) / optim.warmup
    progress = (step - optim.warmup) / max(1, optim.steps - optim.warmup)
    return optim.lr_final + (optim.lr - optim.lr_final) * 0.5 * (1 + math.cos(math.pi * progress))


def _optimise(state: State, batches: Iterable[Batch], loss: Loss, optim: Optim) -> Iterator[None]:
    """Train on the batches and yield after every optimiser step.

    Args:
        state: Network, optimiser and average, which are changed in place.
        batches: Batches, one for each forward and backward pass.
        loss: Mean loss of the network on a batch.
        optim: Optimiser and schedule.
    """
    accelerator, parts = state.accelerator, []
    for batch in batches:
        with accelerator.accumulate(state.prepared):
            for group in state.optimiser.param_groups:
                group["lr"] = _learning_rate(state.step, optim) * group["relative_lr"]
            value = loss(state.prepared, batch)
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

    A run that is killed at any time and started again ends with the same weights, optimiser and metrics.csv as an
    undisturbed one, bit by bit (CPU, one process, one thread, same versions). SIGTERM and Ctrl-C take effect after the
    current step, when a checkpoint is written.

    Args:
        network: Network on the CPU.
        crops: All items of the run in their order; see :func:`ram_models.training.batches.crop_numbers`.
        loss: Mean loss of the network on a batch; the mean over parts of a batch must be that of the batch.
        validation: Held-out crops.
        run: The recipe's configuration.
        accelerator: Devices and processes, from :func:`start`.
        data_id: Fingerprint of the images, by which a change is noticed.
        train_mode: Sets the network to training mode; that of a mask keeps the statistics of frozen layers.

    Raises:
        ValueError: If an image cannot be read (the finished steps are saved), the loss is not finite, a checkpoint in
            the folder has other settings, or another process trains in the folder.
        OSError: If a file cannot be written.

    Warns:
        UserWarning: If the run began with other images.
    """
    with sole_writer(run.out) if accelerator.is_main_process else nullcontext():
        saver, state = Saver.of(run, data_id), State.begin(network, run.optim, accelerator, train_mode)
        set_seed(run.seed, device_specific=True)  # so that processes drop different paths of a stochastic network
        log = _begin(run, saver, state, validation)
        batches = read(make_loader(crops, run, state.step, accelerator), accelerator.device)
        with log, stop_requests() as received:
            number = _train(state, batches, loss, validation, run, saver=saver, log=log, received=received)
        if state.step == run.optim.steps:
            saver.finish(state)
        else:
            accelerator.print(f"stopped after step {state.step} of {run.optim.steps}; the same command continues there")
        accelerator.wait_for_everyone()
    if number:
        signal.raise_signal(number)


def _begin(run: Run, saver: Saver, state: State, validation: Validation) -> MetricsLog:
    """Resume the run if it has a checkpoint, open its log and record the start."""
    accelerator, metrics = state.accelerator, saver.resume(state)
    log = MetricsLog(
        out=run.out,
        names=[f"psnr_{name}" for name in validation.names],
        metrics=metrics,
        step=state.step,
        steps=run.optim.steps,
        batch_size=run.optim.batch_size,
        tensorboard=run.log.tensorboard,
        active=accelerator.is_main_process,
    )
    if accelerator.is_main_process:
        used = {"processes": accelerator.num_processes, "device": str(accelerator.device), "seed": run.seed}
        record_start(run.out, run, state.step, used | {"threads": torch.get_num_threads()})
    return log


def _train(
    state: State,
    batches: Iterable[Batch],
    loss: Loss,
    validation: Validation,
    run: Run,
    saver: Saver,
    log: MetricsLog,
    received: list[int],
) -> int:
    """Train to the end, or until a signal arrives in any process: its number, else 0."""
    number = 0
    try:
        for _ in _optimise(state, batches, loss, run.optim):
            log.step()
            number, last = _largest(state.accelerator, received), state.step == run.optim.steps
            validated = last or state.step % run.log.validate_every == 0
            if validated or state.step % run.log.every == 0:
                _report(state, run, log, validation if validated else None)
            if last or number or state.step % run.log.save_every == 0:
                saver.save(state)
            if number:
                break
    except UnreadableData:
        if state.accelerator.num_processes == 1:  # the others could not be waited for
            saver.save(state)
        raise
    return number


def _report(state: State, run: Run, log: MetricsLog, validation: Validation | None) -> None:
    """Write a row of metrics, with those of a validation if one is given."""
    accelerator, picture = state.accelerator, None
    values = {"loss": state.mean_loss(), "lr": _learning_rate(state.step - 1, run.optim)}
    if accelerator.is_main_process and validation is not None:
        with accelerator.autocast():
            psnr, picture = validate(state.result.eval(), validation, run.optim.batch_size, accelerator.device)
        values |= psnr
        state.train_mode(state.network)
    log.row(state.step, values, picture)
    state.losses.clear()


def _largest(accelerator: Accelerator, received: list[int]) -> int:
    """The largest signal number that any process received, 0 without any; processes wait for each other."""
    own = max(received, default=0)
    if accelerator.num_processes == 1:
        return own
    count: Tensor = accelerator.reduce(torch.tensor(float(own > 0), device=accelerator.device), "sum")
    return max(gather_object([own])) if count > 0 else 0
