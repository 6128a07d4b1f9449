"""RAM-SwinIR: the properties behind its numbers; tests/reference compares the numbers themselves."""

import pytest
import torch
from torch import nn

from ram_models.networks.maskable import reflect_pad
from ram_models.networks.rgb import RGBSwinIR
from ram_models.networks.swinir import (
    SwinBlock,
    SwinIR,
    merge_windows,
    partition_windows,
    relative_positions,
    shifted_window_mask,
)

SMALL = {"img_size": 16, "embed_dim": 8, "depths": (2, 1), "num_heads": (2, 1)}


@pytest.fixture
def net():
    return SwinIR(**SMALL).double().eval()


@pytest.fixture
def image():
    return torch.rand(2, 3, 16, 16, dtype=torch.float64)


@pytest.fixture
def mask():
    return (torch.rand(2, 16, 16, dtype=torch.float64) < 0.5).double()


def test_windows_are_squares_row_by_row():
    grid = torch.arange(8 * 12).reshape(1, 8, 12, 1).double()
    windows = partition_windows(grid, 4)
    assert windows.shape == (6, 16, 1)
    assert windows[4].flatten().tolist() == grid[0, 4:8, 4:8].flatten().tolist()


def test_merging_undoes_partitioning():
    grid = torch.rand(2, 8, 12, 5)
    assert merge_windows(partition_windows(grid, 4), 8, 12).equal(grid)


def test_relative_positions_number_the_offsets_row_by_row():
    index = relative_positions(3)
    place = torch.stack([torch.arange(9) // 3, torch.arange(9) % 3])
    offset = place[:, :, None] - place[:, None, :]
    assert index.equal((offset[0] + 2) * 5 + offset[1] + 2)
    assert index.unique().tolist() == list(range(25))


@pytest.mark.parametrize("size", [(8, 8), (16, 24)], ids=["one_window", "several_windows"])
def test_tokens_that_the_shift_brings_together_do_not_see_each_other(size):
    height, width = size
    wrapped = torch.zeros(2, height, width)
    wrapped[0, height - 4 :], wrapped[1, :, width - 4 :] = 1, 1
    windows = partition_windows(wrapped.permute(1, 2, 0)[None], 8)
    together = (windows[:, :, None] == windows[:, None, :]).all(-1)
    got = shifted_window_mask(height, width, 8, 4)
    assert got.equal(torch.where(together, 0.0, -100.0))


def influence(function, shape, row, column):
    """Where the output changes with one channel of one pixel of the input."""
    image = torch.rand(shape, dtype=torch.float64)
    changed = image.clone()
    changed[:, 0, row, column] += 1
    return (function(changed) - function(image)).detach().abs().sum((0, 1))


@pytest.mark.parametrize(
    ("shift", "row", "column", "seen"),
    [(0, 3, 12, (slice(0, 8), slice(8, 16))), (4, 7, 7, (slice(4, 12), slice(4, 12))), (4, 0, 0, (slice(0, 4),) * 2)],
    ids=["straight", "shifted", "shifted_at_the_corner"],
)
def test_a_block_spreads_a_pixel_over_its_window_alone(shift, row, column, seen):
    block = SwinBlock(8, 16, num_heads=2, window_size=8, shift=shift, mlp_ratio=2.0).double()

    def run(image):
        return block(image.flatten(2).transpose(1, 2), 16, 16).transpose(1, 2).unflatten(2, (16, 16))

    change = influence(run, (1, 8, 16, 16), row, column)
    inside = torch.zeros(16, 16, dtype=torch.bool)
    inside[seen] = True
    assert change[inside].min() > 1e-9
    # Masked logits are -100: exp(-100) = 4e-44 of the attention.
    assert change[~inside].max() < 1e-30


def test_hidden_pixels_do_not_influence_the_output(net, image, mask):
    changed = image + mask[:, None] * torch.rand_like(image)
    token = torch.zeros_like(image)
    torch.testing.assert_close(net(changed, mask, token), net(image, mask, token), rtol=0, atol=1e-12)


def test_hiding_is_replacing_pixels_by_the_token(net, image, mask):
    token = torch.rand_like(image)
    want = net(torch.where(mask[:, None] > 0, token, image))
    torch.testing.assert_close(net(image, mask, token), want, rtol=0, atol=1e-12)


def test_without_tokens_hidden_pixels_show_the_learned_one(net, image, mask):
    want = net(image, mask, net.mask_token.expand_as(image))
    torch.testing.assert_close(net(image, mask), want, rtol=0, atol=1e-12)


def test_a_mask_of_zeros_hides_nothing(net, image, mask):
    assert net(image, torch.zeros_like(mask)).equal(net(image))


def test_gradients_reach_every_visible_pixel(net, image, mask):
    image.requires_grad_()
    net(image, mask).square().sum().backward()
    assert (image.grad.abs().sum(1) > 0).equal(mask == 0)


def test_images_of_a_batch_do_not_influence_each_other(net, image):
    torch.testing.assert_close(net(image)[1:], net(image[1:]), rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [(16, 16), (13, 21), (5, 40)], ids=str)
def test_the_output_is_that_of_the_padded_image_cropped(net, size):
    image = torch.rand(1, 3, *size, dtype=torch.float64)
    padded = reflect_pad(image, 8)
    assert padded.shape[-2] % 8 == padded.shape[-1] % 8 == 0
    torch.testing.assert_close(net(image), net(padded)[..., : size[0], : size[1]], rtol=0, atol=1e-12)


def test_padding_mirrors_without_repeating_the_border():
    image = torch.arange(6.0).expand(1, 1, 8, 6)
    assert reflect_pad(image, 8)[0, 0, 0].tolist() == [0, 1, 2, 3, 4, 5, 4, 3]


def test_the_input_is_not_added_to_the_output(net, image):
    with torch.no_grad():
        net.conv_last.weight.zero_()
        net.conv_last.bias.fill_(0.25)
    assert (net(image) == 0.25).all()


def test_stored_attention_masks_are_those_of_the_training_size(net, image):
    block = net.layers[0].residual_group.blocks[1]
    want = net(image)
    block.img_size = 0  # compute the mask afresh
    torch.testing.assert_close(net(image), want, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_heads": (2,)}, r"`num_heads` needs one entry per group, got \[2\] for depths \[2, 1\]"),
        ({"num_heads": (3, 1)}, r"`embed_dim` must be a multiple of every head count, got 8 for \[3, 1\]"),
        ({"img_size": 20}, "`img_size` must be a multiple of `window_size` 8, got 20"),
    ],
    ids=["heads_missing", "heads", "img_size"],
)
def test_contradicting_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        SwinIR(**(SMALL | arguments))


@pytest.mark.parametrize("size", [(4, 16), (16, 3)], ids=str)
def test_images_smaller_than_their_padding_are_refused(net, size):
    with pytest.raises(ValueError, match=rf"image of {size[0]}x{size[1]} pixels is too small .* at least 5 pixels"):
        net(torch.rand(1, 3, *size, dtype=torch.float64))


@pytest.mark.usefixtures("as_users_run_it")
def test_the_learned_token_exists_at_its_size_only(net):
    image = torch.rand(1, 3, 24, 24, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"mask token of shape \(1, 3, 16, 16\) does not fit .* pass `mask_tokens`"):
        net(image, torch.ones(1, 24, 24, dtype=torch.float64))


# RGB at the border.


@pytest.fixture
def rgb_net(net):
    wrapped = RGBSwinIR(**SMALL).double().eval()
    wrapped.load_state_dict(net.state_dict())
    return wrapped


def normalise(image):
    mean, std = (torch.tensor(v, dtype=torch.float64).reshape(3, 1, 1) for v in
                 ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))  # fmt: skip
    return (image - mean) / std


def test_rgb_networks_normalise_on_the_way_in_and_back_on_the_way_out(net, rgb_net, image):
    # The constants are stored as float32.
    torch.testing.assert_close(normalise(rgb_net(image)), net(normalise(image)), rtol=1e-6, atol=1e-6)


def test_hidden_pixels_show_the_reference_input_which_is_zero_inside(net, rgb_net, image, mask):
    torch.testing.assert_close(normalise(rgb_net.reference_input), torch.zeros(3, 1, 1).double(), rtol=0, atol=1e-6)
    want = rgb_net(torch.where(mask[:, None] > 0, rgb_net.reference_input, image))
    torch.testing.assert_close(rgb_net(image, mask), want, rtol=0, atol=1e-12)


def test_layer_names_and_checkpoint_keys_are_those_of_the_bare_network(net, rgb_net):
    assert list(rgb_net.state_dict()) == list(net.state_dict())
    assert [name for name, _ in rgb_net.named_modules()] == [name for name, _ in net.named_modules()]


def test_linear_layers_start_without_bias(net):
    biases = [module.bias.detach() for module in net.modules() if isinstance(module, nn.Linear)]
    assert max(float(bias.abs().max()) for bias in biases) == 0
