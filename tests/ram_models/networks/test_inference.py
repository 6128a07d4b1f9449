"""Any size: tiles give what the whole image gives, tiny images pass, and randomness belongs to the file."""

import pytest
import torch
from torch import nn

from ram_models.networks.inference import (
    _tile_spans,
    _tile_weights,
    check_device,
    check_tiles,
    network_by_name,
    restore_any_size,
    restorer,
    tile_count,
)
from ram_models.seeds import seeded


def convolutions(radius: int) -> nn.Module:
    """A network that sees ``radius`` pixels far, with outputs inside [0, 1]."""
    layers = [nn.Conv2d(3, 3, 3, padding=1, padding_mode="replicate") for _ in range(radius)]
    return nn.Sequential(*layers, nn.Sigmoid()).double()


@pytest.mark.parametrize("length", [1, 15, 48, 49, 64, 65, 100, 1000])
@pytest.mark.parametrize(("tile", "overlap"), [(48, 0), (48, 16), (64, 32)])
def test_tiles_cover_every_pixel_and_their_shares_add_up_to_one(length, tile, overlap):
    spans = _tile_spans(length, tile, overlap)
    weights = _tile_weights(spans, overlap)
    assert spans[0][0] == 0
    assert spans[-1][1] == length
    assert all(end - begin <= tile and begin % 16 == 0 for begin, end in spans)
    torch.testing.assert_close(weights.sum(0), torch.ones(length))
    for share, (begin, end) in zip(weights, spans, strict=True):
        assert share[:begin].sum() == share[end:].sum() == 0


def test_neighbouring_tiles_fade_linearly_over_the_middle_half_of_their_overlap():
    first, second = _tile_weights([(0, 48), (32, 80)], 16)
    expected = torch.tensor([0, 0, 0, 0, 1, 3, 5, 7, 9, 11, 13, 15, 16, 16, 16, 16]) / 16
    torch.testing.assert_close(second[32:48], expected)
    torch.testing.assert_close(first[32:48], 1 - expected)


@pytest.mark.parametrize(("height", "width"), [(70, 130), (64, 65), (33, 200)])
@torch.no_grad()
def test_tiling_is_exact_for_a_network_that_sees_a_quarter_of_the_overlap(height, width):
    network, image = convolutions(8), torch.rand(3, height, width, dtype=torch.float64)
    whole = restore_any_size(network, image)
    tiled = restore_any_size(network, image, tile=64, overlap=32)
    assert tile_count(height, width, 64, 32) > 1
    torch.testing.assert_close(whole.double(), network(image[None])[0], atol=1e-7, rtol=0)  # float32 output
    torch.testing.assert_close(tiled, whole, atol=1e-6, rtol=0)  # and float32 shares


@torch.no_grad()
def test_tiling_is_wrong_only_near_the_seams_for_a_network_that_sees_farther():
    network, image = convolutions(9), torch.rand(3, 64, 112, dtype=torch.float64)
    error = (restore_any_size(network, image, 64, 16) - restore_any_size(network, image)).abs().amax((0, 1))
    seams = torch.zeros(112, dtype=torch.bool)
    seams[48:64] = True  # the overlap of (0, 64) and (48, 112)
    assert error[seams].max() > 1e-6
    assert error[~seams].max() < 1e-6


def test_the_bundled_network_gives_nearly_the_same_in_tiles():
    """It sees the whole image, so tiles differ; the blend keeps that below a level of 8 bits in the mean."""
    from ram_models.data.crops import clean_photographs

    network, image = network_by_name("ram-swinir-tiny", None, "cpu")[0], clean_photographs(64)["chelsea"]
    whole, tiled = (
        restore_any_size(restorer(network, False, seeded("a")), image, tile, overlap)
        for tile, overlap in ((None, 0), (48, 16))
    )
    assert float((whole - tiled).abs().mean()) < 1 / 255


@pytest.mark.parametrize("size", [(1, 1), (3, 20), (7, 7), (17, 2), (9, 33)])
@pytest.mark.parametrize("twins", [False, True])
def test_images_below_the_window_pass(size, twins):
    network, _ = network_by_name("ram-swinir-tiny", None, "cpu")
    image = torch.rand(3, *size)
    restored = restore_any_size(restorer(network, twins, seeded("a")), image)
    assert restored.shape == image.shape
    assert 0 <= restored.min() <= restored.max() <= 1


def test_twin_masks_belong_to_the_generator():
    network, image = network_by_name("ram-swinir-tiny", None, "cpu")[0], torch.rand(3, 16, 16)
    first, again, other = (
        restore_any_size(restorer(network, True, seeded(name)), image) for name in ("a.png", "a.png", "b.png")
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_every_tile_is_reported():
    seen = []
    restore_any_size(nn.Identity(), torch.rand(3, 40, 100), 32, 16, seen.append)
    assert sum(seen) == tile_count(40, 100, 32, 16) == 12


def test_the_result_is_clipped():
    restored = restore_any_size(lambda image: image * 3 - 1, torch.tensor([0.0, 0.5, 1.0]).reshape(3, 1, 1))
    assert restored.flatten().tolist() == [0, 0.5, 1]


def test_names_and_seeds_decide_the_numbers():
    draws = {float(torch.rand((), generator=seeded(*key))) for key in (("a", 0), ("b", 0), ("a", 1), ("a", 0))}
    assert len(draws) == 3


@pytest.mark.parametrize(
    ("tile", "overlap", "message"),
    [
        (0, 0, "`tile` must be a positive multiple of 16 pixels, got 0"),
        (100, 0, "`tile` must be a positive multiple of 16 pixels, got 100"),
        (64, 48, "`overlap` must be a multiple of 16 pixels from 0 to half of `tile` 64, got 48"),
        (64, 8, "`overlap` must be a multiple of 16 .* got 8"),
        (64, -16, "`overlap` must be a multiple of 16 .* got -16"),
    ],
)
def test_tiles_that_cannot_cover_are_refused(tile, overlap, message):
    with pytest.raises(ValueError, match=message):
        check_tiles(tile, overlap)


@pytest.mark.parametrize(
    ("restore", "message"),
    [
        (lambda image: image[..., :-1], r"returned shape \(1, 3, 16, 15\) for an image of shape \(1, 3, 16, 16\)"),
        (lambda image: image / 0, "values that are not finite"),
    ],
    ids=["size", "nan"],
)
def test_networks_that_break_the_contract_are_refused(restore, message):
    with pytest.raises(ValueError, match=message):
        restore_any_size(restore, torch.rand(3, 16, 16))


@pytest.mark.parametrize("twins", [False, True])
def test_the_identity_gives_the_image_back(twins):
    image, identity = torch.rand(3, 50, 40), network_by_name("identity", None, "cpu")[0]
    torch.testing.assert_close(restore_any_size(restorer(identity, twins, seeded("a")), image, 32, 16), image)


def test_a_network_without_weights_is_refused(tmp_path):
    with pytest.raises(ValueError, match="'ram-swinir' comes without weights: give a file of them as `weights`"):
        network_by_name("ram-swinir", None, "cpu")
    with pytest.raises(ValueError, match="have no effect on `network` identity"):
        network_by_name("identity", tmp_path, "cpu")
    with pytest.raises(ValueError, match="`twins` has no effect on `network` identity"):
        network_by_name("identity", None, "cpu", twins=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_missing_device_is_refused():
    with pytest.raises(ValueError, match="`device` is 'cuda', but torch finds no cuda device here"):
        network_by_name("identity", None, "cuda")


@pytest.mark.parametrize("device", ["foo", "cpu:x", "", "cuda:99", "meta", "cpu:1"])
def test_devices_that_are_not_here_are_refused(device):
    with pytest.raises(ValueError, match=r"`device` "):
        check_device(device)


def test_the_cpu_is_always_here():
    check_device("cpu")
    check_device("cpu:0")
