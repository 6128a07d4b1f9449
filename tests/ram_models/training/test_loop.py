"""Pieces of the training recipes: what a step sees never depends on how the work is divided."""

import math
import os
import signal
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from ram_models.data.sets import ImageSet, Pair
from ram_models.training.batches import UnreadableData, crop_numbers, read
from ram_models.training.config import Compute, Data, Log, Optim
from ram_models.training.crops import MaskedCrops, divide, fingerprint, training_crops
from ram_models.training.loop import _learning_rate, start
from ram_models.training.losses import masked_l1, whole_l1
from ram_models.training.stop_requests import stop_requests
from ram_models.training.validation import Validation, validate

PAIRS = TensorDataset(torch.rand(6, 3, 8, 8), torch.rand(6, 3, 8, 8))


def test_masked_l1_is_the_mean_error_of_the_hidden_pixels():
    clean, mask = torch.zeros(1, 3, 2, 2), torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
    restored = torch.tensor([[0.1, 9.0], [0.3, 9.0]]).expand(1, 3, 2, 2)
    assert float(masked_l1(restored, clean, mask)) == pytest.approx(0.2)


def test_masked_l1_ignores_visible_pixels():
    restored, clean = torch.rand(2, 2, 3, 8, 8)
    restored.requires_grad_()
    mask = (torch.rand(2, 8, 8) < 0.5).float()
    (gradient,) = torch.autograd.grad(masked_l1(restored, clean, mask), restored)
    visible = (mask == 0)[:, None].expand_as(gradient)
    assert gradient[visible].abs().max() == 0
    assert gradient[~visible].abs().min() > 0


def test_the_masked_loss_of_a_batch_is_the_mean_of_those_of_its_parts():
    crops = MaskedCrops(PAIRS, seed=0, ratio=0.3)
    degraded, clean, mask = (
        torch.stack(tensors).double() for tensors in zip(*(crops[i] for i in range(6)), strict=True)
    )
    parts = [masked_l1(degraded[i : i + 2], clean[i : i + 2], mask[i : i + 2]) for i in (0, 2, 4)]
    whole = masked_l1(degraded, clean, mask)
    # float64 sums of some hundred terms
    torch.testing.assert_close(torch.stack(parts).mean(), whole, rtol=0, atol=1e-12)


def test_whole_l1_is_the_mean_error_of_all_pixels():
    batch = [torch.zeros(1, 3, 2, 2), torch.tensor([[0.1, 0.2], [0.3, 0.4]]).expand(1, 3, 2, 2)]
    assert float(whole_l1(nn.Identity(), batch)) == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("step", "rate"),
    [(0, 0.25), (3, 1.0), (4, 1.0), (8, 0.55), (12, 0.1)],
    ids=["first", "end_of_warmup", "peak", "half_way", "final"],
)
def test_the_learning_rate_rises_linearly_and_falls_as_a_cosine(step, rate):
    assert _learning_rate(step, Optim(steps=12, warmup=4, lr=1.0, lr_final=0.1)) == pytest.approx(rate)


@pytest.mark.parametrize(("accumulate", "processes"), [(1, 1), (2, 1), (1, 3), (2, 3)])
def test_a_step_sees_the_same_crops_however_it_is_divided(accumulate, processes):
    optim = Optim(steps=4, batch_size=12)
    read_by = [list(crop_numbers(1, optim, accumulate, rank, processes)) for rank in range(processes)]
    for step in range(3):
        passes = slice(step * accumulate, (step + 1) * accumulate)
        crops = sorted(crop for numbers in read_by for part in numbers[passes] for crop in part)
        assert crops == list(range(12 * (step + 1), 12 * (step + 2)))


def test_a_batch_that_cannot_be_divided_is_refused():
    with pytest.raises(ValueError, match=r"`optim\.batch_size` 4 must be a multiple of 3 processes x 1 accumulated"):
        list(crop_numbers(0, Optim(batch_size=4), processes=3))


def test_a_mask_depends_on_seed_and_number_alone():
    crops, again, other = MaskedCrops(PAIRS, seed=0), MaskedCrops(PAIRS, seed=0), MaskedCrops(PAIRS, seed=1)
    masks = [crops[i][2] for i in range(6)]
    torch.rand(7)
    assert all(torch.equal(again[i][2], masks[i]) for i in reversed(range(6)))
    assert not any(torch.equal(other[i][2], masks[i]) for i in range(6))
    assert len({tuple(mask.flatten().tolist()) for mask in masks}) == 6


@pytest.mark.parametrize("ratio", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("patch_size", [1, 4, 8])
def test_masks_have_the_share_and_the_blocks_that_are_asked_for(ratio, patch_size):
    crops = MaskedCrops(TensorDataset(*torch.rand(2, 1, 3, 80, 80)), 0, ratio, patch_size)
    degraded, _, mask = crops[0]
    assert float(mask.mean()) == pytest.approx(ratio)
    blocks = mask.unfold(0, patch_size, patch_size).unfold(1, patch_size, patch_size)
    assert (blocks.amax((2, 3)) == blocks.amin((2, 3))).all()
    assert torch.equal(degraded, crops.crops[0][0])


def test_held_out_images_take_all_their_pairs_with_them():
    pairs = tuple(Pair(f"{n}_{k}", Path(f"{n}.png"), Path(f"{n}_{k}.png")) for n in range(4) for k in range(2))
    training, validation = divide(ImageSet("ITS", "haze", "train", pairs), 1)
    assert [pair.name for pair in training.pairs] == ["0_0", "0_1", "1_0", "1_1", "2_0", "2_1"]
    assert [pair.name for pair in validation.pairs] == ["3_0", "3_1"]


@pytest.mark.parametrize(("held_out", "count"), [(0, 0), (1, 1), (2, 2), (9, 2)])
def test_at_most_a_quarter_of_a_set_is_held_out(held_out, count):
    images = ImageSet("Set", None, "all", tuple(Pair(str(n), Path(f"{n}.png")) for n in range(10)))
    training, validation = divide(images, held_out)
    assert (len(training.pairs), len(validation.pairs)) == (10 - count, count)


def test_test_splits_are_never_trained_on(tmp_path):
    for split in ("our485", "eval15"):
        for side in ("low", "high"):
            (tmp_path / split / side).mkdir(parents=True)
            Image.new("RGB", (4, 4)).save(tmp_path / split / side / "1.png")
    (only,) = Data(folders=tmp_path).sets()
    assert (only.name, only.split) == ("LOL", "train")
    with pytest.raises(ValueError, match=r"hold no training images: only test sets below .*eval15"):
        Data(folders=[tmp_path / "eval15"]).sets()


def test_a_run_without_images_is_refused(pictures):
    with pytest.raises(ValueError, match=r"`data\.clean` hold no training images: neither is given"):
        Data().sets()
    with pytest.raises(ValueError, match=r"`data\.held_out` 0 leaves no image to validate with"):
        training_crops(Data(clean=pictures, held_out=0), Optim(), Compute(), 0)


def test_validation_crops_come_from_held_out_images_alone(pictures):
    training, validation = training_crops(Data(clean=[pictures], crop=16), Optim(steps=3), Compute(), 0)
    assert {pair.name for pair in training.clean} == {"0", "1", "2"}
    assert {pair.name for pair in validation.clean} == {"3"}
    assert (len(training), len(validation)) == (12, 2)
    assert not torch.equal(training[0][1], validation[0][1])


def test_the_fingerprint_is_of_the_images_not_of_their_place(pictures, tmp_path):
    def of(folder):
        return fingerprint(training_crops(Data(clean=folder, crop=16), Optim(), Compute(), 0)[0])

    before = of(pictures)
    moved = pictures.rename(tmp_path / "moved")
    assert of(moved) == before
    (moved / "0.png").rename(moved / "9.png")
    assert of(moved) != before


def test_validation_is_the_mean_psnr_of_the_clipped_images_beside_a_picture():
    clean = torch.full((3, 4, 4), 0.5)
    crops = TensorDataset(torch.stack([clean + 0.1, clean + 0.01, clean + 9.0]), clean.expand(3, 3, 4, 4))
    validation = Validation(crops, ("input", "same"), lambda network, batch: (network(batch[0]), batch[1] + 0.1))
    values, picture = validate(nn.Identity(), validation, 2, torch.device("cpu"), shown=2)
    assert values == {"psnr_input": pytest.approx((20 + 40 + 6.0206) / 3, abs=1e-3), "psnr_same": pytest.approx(20.0)}
    assert picture.shape == (3, 2 * 6, 3 * 6)
    for row, (degraded, _) in enumerate([crops[0], crops[1]]):
        for column, image in enumerate((degraded, clean + 0.1, clean)):
            framed = picture[:, 6 * row : 6 * row + 6, 6 * column : 6 * column + 6]
            torch.testing.assert_close(framed[:, :4, :4], image)
            assert (framed[:, 4:] == 1).all()
            assert (framed[:, :, 4:] == 1).all()


def test_a_crop_that_came_out_undegraded_leaves_the_mean_finite():
    clean = torch.full((3, 4, 4), 0.5)
    crops = TensorDataset(torch.stack([clean, clean + 0.1]), clean.expand(2, 3, 4, 4))
    validation = Validation(crops, ("input", "clean"), lambda network, batch: tuple(batch))
    with pytest.warns(
        UserWarning, match=r"of the 2 held-out crops, .*: 1 of psnr_input, 2 of psnr_clean\. .* the others"
    ):
        values, _ = validate(nn.Identity(), validation, 2, torch.device("cpu"))
    assert values == {"psnr_input": pytest.approx(20.0, abs=1e-3), "psnr_clean": float("inf")}


def test_a_diverged_network_is_seen_in_the_validation():
    clean = torch.full((3, 4, 4), 0.5)
    crops = TensorDataset(clean.expand(2, 3, 4, 4) + 0.1, clean.expand(2, 3, 4, 4))
    validation = Validation(crops, ("input", "whole"), lambda network, batch: (batch[0], batch[0] * torch.nan))
    values, _ = validate(nn.Identity(), validation, 2, torch.device("cpu"))
    assert math.isnan(values["psnr_whole"])


def test_fp16_on_a_cpu_is_refused():
    with pytest.raises(ValueError, match=r"fp16 needs a GPU, .* choose bf16"):
        start(Compute("fp16", cpu=True), 0)


def test_stop_requests_are_noted_and_the_handlers_come_back():
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with stop_requests() as received:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert received == [signal.SIGTERM, signal.SIGINT]
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_a_second_interrupt_acts_at_once():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    try:
        with stop_requests():
            os.kill(os.getpid(), signal.SIGINT)
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


class Unreadable(Dataset):
    """One item, which is broken."""

    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise ValueError("'a.png' cannot be read as an image: broken.")


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_item_is_one_line_with_or_without_loading_processes(workers):
    loader = DataLoader(Unreadable(), num_workers=workers)
    with pytest.raises(UnreadableData) as caught:
        list(read(loader, torch.device("cpu")))
    assert str(caught.value) == "'a.png' cannot be read as an image: broken."


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Optim(lr=-1.0), "`optim.lr` must be above 0, got -1.0"),
        (lambda: Optim(steps=0), "`optim.steps` must be at least 1, got 0"),
        (lambda: Optim(ema=1.0), "`optim.ema` must be at least 0 and below 1, got 1.0"),
        (lambda: Log(keep=0), "`log.keep` must be at least 1, got 0"),
        (lambda: Optim(batch_size=0), "`optim.batch_size` must be at least 1, got 0"),
        (lambda: Optim(lr=math.nan), "`optim.lr` must be above 0, got nan"),
        (lambda: Optim(lr=math.inf), "`optim.lr` must be above 0, got inf"),
        (lambda: Optim(clip=0.0), "`optim.clip` must be above 0, got 0"),
        (lambda: Optim(warmup=-1), "`optim.warmup` must be at least 0, got -1"),
        (lambda: Optim(betas=(0.9, 1.0)), r"`optim.betas` must lie in \[0, 1\), got"),
        (lambda: Compute(accumulate=0), "`compute.accumulate` must be at least 1, got 0"),
        (lambda: Compute(workers=-1), "`compute.workers` must be at least 0, got -1"),
        (lambda: Data(crop=0), "`data.crop` must be at least 1, got 0"),
        (lambda: Data(grey=1.5), "`data.grey` must be at least 0 and at most 1, got 1.5"),
        (lambda: Data(tasks=["fog"]), "`data.tasks` has no 'fog': choose from haze"),
    ],
)
def test_impossible_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
