"""Training loops of other libraries move the selected parameters and nothing else, and a run that is resumed too."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from macattr.selection.trainable import TrainableMask

STEPS = 2
MASK = TrainableMask(("head",))


class Network(nn.Module):
    """A frozen convolution and batch norm, a trained head, and its own loss, as models of transformers have."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)
        self.norm = nn.BatchNorm2d(2)
        self.head = nn.Linear(2, 1)

    def forward(self, pixel_values: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        output = self.head(self.norm(self.conv(pixel_values)).mean((2, 3)))
        return {"loss": nn.functional.mse_loss(output, labels), "logits": output}


def network() -> Network:
    torch.manual_seed(0)
    return Network()


def samples() -> list[dict[str, torch.Tensor]]:
    """Equal ones, so that the order of the batches makes no difference."""
    generator = torch.Generator().manual_seed(0)
    pixels, label = torch.rand(1, 6, 6, generator=generator), torch.rand(1, generator=generator)
    return [{"pixel_values": pixels, "labels": label}] * (4 * STEPS)


def moved(trained: nn.Module, start: nn.Module) -> set[str]:
    """Parameters and buffers that are no longer what they were."""
    old = start.state_dict()
    return {name for name, value in trained.state_dict().items() if not torch.equal(value, old[name])}


def by_accelerate(model: Network, folder: Path, steps: int, resume: bool) -> nn.Module:
    accelerate = pytest.importorskip("accelerate", reason="needs accelerate: pip install 'macattr[train]'")
    accelerator = accelerate.Accelerator(cpu=True)
    optimizer = torch.optim.AdamW(MASK.parameter_groups(model, lr=0.1))
    loader = torch.utils.data.DataLoader(samples(), batch_size=4)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    if resume:
        accelerator.load_state(str(folder / "state"))
    MASK.train_mode(accelerator.unwrap_model(model))
    for _, batch in zip(range(steps), loader, strict=False):
        accelerator.backward(model(**batch)["loss"])
        optimizer.step()
        optimizer.zero_grad()
    accelerator.save_state(str(folder / "state"))
    return accelerator.unwrap_model(model)


def by_transformers(model: Network, folder: Path, steps: int, resume: bool) -> nn.Module:
    transformers = pytest.importorskip("transformers", reason="needs transformers: pip install 'macattr[hf]'")

    class Trainer(transformers.Trainer):
        def compute_loss(self, model, *given, **options):
            if model.training:
                MASK.train_mode(self.accelerator.unwrap_model(model))
            return super().compute_loss(model, *given, **options)

    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        max_steps=steps + resume,
        per_device_train_batch_size=4,
        learning_rate=0.1,
        lr_scheduler_type="constant",
        save_steps=1,
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        logging_strategy="no",
    )
    trainer = Trainer(model, arguments, train_dataset=samples())
    trainer.train(resume_from_checkpoint=resume)
    return model


def by_lightning(model: Network, folder: Path, steps: int, resume: bool) -> nn.Module:
    lightning = pytest.importorskip("lightning.pytorch", reason="needs lightning: make test-real installs it")

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def training_step(self, batch, index):
            return self.model(**batch)["loss"]

        def configure_optimizers(self):
            return torch.optim.AdamW(MASK.parameter_groups(self.model, lr=0.1))

    class KeepStatistics(lightning.Callback):
        def on_train_batch_start(self, trainer, module, batch, index):
            MASK.train_mode(module.model)

    trainer = lightning.Trainer(
        max_steps=steps + resume,
        accelerator="cpu",
        callbacks=[KeepStatistics()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    loader = torch.utils.data.DataLoader(samples(), batch_size=4)
    trainer.fit(Module(), loader, ckpt_path=str(folder / "state.ckpt") if resume else None)
    trainer.save_checkpoint(folder / "state.ckpt")
    return model


Loop = Callable[[Network, Path, int, bool], nn.Module]


@pytest.fixture(params=[by_accelerate, by_transformers, by_lightning], ids=["accelerate", "transformers", "lightning"])
def loop(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Loop:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    return request.param


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
def test_two_steps_move_what_is_selected_and_no_statistics(loop, tmp_path):
    model = network()
    MASK.apply(model)
    assert moved(loop(model, tmp_path, STEPS, False), network()) == {"head.weight", "head.bias"}


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
def test_a_run_that_is_resumed_ends_as_one_that_was_not(loop, tmp_path):
    whole, first, second = network(), network(), network()
    for model in (whole, first, second):
        MASK.apply(model)
    whole = loop(whole, tmp_path / "whole", STEPS, False)
    loop(first, tmp_path / "parts", 1, False)
    second = loop(second, tmp_path / "parts", 1, True)
    assert moved(second, network()) == {"head.weight", "head.bias"}
    torch.testing.assert_close(second.state_dict(), whole.state_dict())


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
def test_the_page_shows_a_loop_of_lightning_that_runs(tmp_path, monkeypatch):
    pytest.importorskip("lightning", reason="needs lightning: make test-real installs it")
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[3] / "docs" / "trainers.md").read_text()
    blocks = re.findall(r"^```(python|text)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    names: dict[str, object] = {}
    for code in (blocks[0][1], *(code for language, code in blocks if language == "text")):
        exec(code, names)
    assert names["trainer"].global_step == 2
