"""RAM-PromptIR: the properties behind its numbers; tests/reference compares the numbers themselves."""

import pytest
import torch
import torch.nn.functional as F

from macattr import rank_layers
from ram_models.networks.maskable import reflect_pad
from ram_models.networks.promptir import (
    ChannelAttention,
    ChannelNorm,
    GatedFeedForward,
    PromptBlock,
    PromptIR,
    TransformerBlock,
    double,
    halve,
)
from ram_models.networks.rgb import RGBPromptIR

SMALL = {"dim": 12, "num_blocks": (1, 1, 1, 1), "num_refinement_blocks": 1, "ffn_expansion_factor": 0.5}
ROUNDING = {"rtol": 0, "atol": 1e-12}
"""float64 outputs of order one, a dozen layers deep."""


@pytest.fixture
def net():
    return PromptIR(**SMALL).double().eval()


@pytest.fixture
def image():
    return torch.rand(2, 3, 32, 16, dtype=torch.float64)


@pytest.fixture
def mask():
    return (torch.rand(2, 32, 16, dtype=torch.float64) < 0.5).double()


@pytest.fixture
def features():
    return torch.randn(2, 6, 5, 7, dtype=torch.float64)


# The blocks.


def test_the_norm_is_over_the_channels_of_every_pixel(features):
    normalised = ChannelNorm(6).double()(3 + 2 * features)
    torch.testing.assert_close(normalised.mean(1), torch.zeros(2, 5, 7).double(), **ROUNDING)
    # eps = 1e-5 beside a variance of order one.
    torch.testing.assert_close(normalised.var(1, unbiased=False), torch.ones(2, 5, 7).double(), rtol=0, atol=1e-3)


def projections(attention, features):
    """Queries, keys and values: (b, heads, channels of a head, pixels)."""
    rows = attention.qkv_dwconv(attention.qkv(features)).flatten(2)
    return [part.reshape(2, 2, 3, 35) for part in rows.chunk(3, 1)]


@torch.no_grad()
def test_at_temperature_zero_attention_averages_the_channels_of_a_head(features):
    attention = ChannelAttention(6, num_heads=2).double()
    attention.temperature.zero_()
    values = projections(attention, features)[2].mean(2, keepdim=True).expand(2, 2, 3, 35).reshape(2, 6, 5, 7)
    torch.testing.assert_close(attention(features), attention.project_out(values), **ROUNDING)


@torch.no_grad()
def test_attention_is_torchs_on_normalised_rows_with_channels_as_tokens(features):
    attention = ChannelAttention(6, num_heads=2).double()
    attention.temperature.copy_(torch.tensor([0.5, 4.0]).reshape(2, 1, 1))
    q, k, v = projections(attention, features)
    q, k = q / q.norm(dim=-1, keepdim=True), k / k.norm(dim=-1, keepdim=True)
    heads = F.scaled_dot_product_attention(q * attention.temperature, k, v, scale=1.0)
    torch.testing.assert_close(attention(features), attention.project_out(heads.reshape(2, 6, 5, 7)), **ROUNDING)


@torch.no_grad()
def test_the_first_half_gates_the_second(features):
    feed_forward = GatedFeedForward(6, 4).double()
    gate, value = feed_forward.dwconv(feed_forward.project_in(features)).split(4, 1)
    # GELU is x times the normal distribution function.
    want = feed_forward.project_out(gate * torch.special.ndtr(gate) * value)
    torch.testing.assert_close(feed_forward(features), want, **ROUNDING)


@torch.no_grad()
def test_a_block_whose_projections_are_zero_changes_nothing(features):
    block = TransformerBlock(6, 2, 0.5).double()
    for branch in (block.attn, block.ffn):
        branch.project_out.weight.zero_()
    assert block(features).equal(features)


@torch.no_grad()
def test_undecided_features_get_the_mean_prompt(features):
    prompt = PromptBlock(6, 4, size=8).double()
    for parameter in prompt.linear_layer.parameters():
        parameter.zero_()
    mean = F.interpolate(prompt.prompt_param[0].mean(0, keepdim=True), (5, 7), mode="bilinear")
    torch.testing.assert_close(prompt(features), prompt.conv3x3(mean).expand(2, -1, -1, -1), **ROUNDING)


@torch.no_grad()
def test_decided_features_get_their_prompt_by_their_mean_alone(features):
    prompt = PromptBlock(6, 4, size=8).double()
    prompt.linear_layer.weight.zero_()
    prompt.linear_layer.weight[3, 0] = 1e6
    features[0, 0] += 1 - features[0, 0].mean()  # mean 1: prompt 3 by far
    third = prompt.conv3x3(F.interpolate(prompt.prompt_param[:, 3], (5, 7), mode="bilinear"))
    torch.testing.assert_close(prompt(features)[:1], third, **ROUNDING)
    shuffled = features.flatten(2)[..., torch.randperm(35)].reshape(2, 6, 5, 7)
    torch.testing.assert_close(prompt(shuffled)[:1], third, **ROUNDING)


@torch.no_grad()
@pytest.mark.parametrize(
    ("resample", "shape"), [(halve, (2, 12, 2, 3)), (double, (2, 3, 8, 12))], ids=["halve", "double"]
)
def test_resampling_rearranges_the_pixels_of_its_convolution(resample, shape):
    module, features = resample(6).double(), torch.randn(2, 6, 4, 6, dtype=torch.float64)
    got, convolved = module(features), module.body[0](features)
    assert got.shape == shape
    torch.testing.assert_close(got.flatten(1).sort().values, convolved.flatten(1).sort().values, **ROUNDING)


# The network.


@torch.no_grad()
def test_the_masked_input_is_added_to_the_output(net, image, mask):
    net.output.weight.zero_()
    assert net(image).equal(image)
    assert net(image, mask).equal(image * (1 - mask[:, None]))


def test_hidden_pixels_do_not_influence_the_output(net, image, mask):
    changed = image + mask[:, None] * torch.rand_like(image)
    torch.testing.assert_close(net(changed, mask), net(image, mask), **ROUNDING)


def test_hiding_is_replacing_pixels_by_the_token(net, image, mask):
    token = torch.rand_like(image)
    want = net(torch.where(mask[:, None] > 0, token, image))
    torch.testing.assert_close(net(image, mask, token), want, **ROUNDING)


def test_without_tokens_hidden_pixels_show_zero_at_any_size(net, image, mask):
    want = net(image, mask, torch.zeros_like(image))
    torch.testing.assert_close(net(image, mask), want, **ROUNDING)


def test_a_mask_of_zeros_hides_nothing(net, image, mask):
    assert net(image, torch.zeros_like(mask), torch.rand_like(image)).equal(net(image))


def test_images_of_a_batch_do_not_influence_each_other(net, image):
    torch.testing.assert_close(net(image)[1:], net(image[1:]), **ROUNDING)


@pytest.mark.parametrize("size", [(16, 32), (9, 21), (40, 15)], ids=str)
def test_the_output_is_that_of_the_padded_image_cropped(net, size):
    image = torch.rand(1, 3, *size, dtype=torch.float64)
    padded = reflect_pad(image, 16)
    assert padded.shape[-2] % 16 == padded.shape[-1] % 16 == 0
    torch.testing.assert_close(net(image), net(padded)[..., : size[0], : size[1]], **ROUNDING)


@pytest.mark.parametrize("size", [(8, 16), (16, 1)], ids=str)
def test_images_smaller_than_their_padding_are_refused(net, size):
    with pytest.raises(ValueError, match=rf"image of {size[0]}x{size[1]} pixels is too small .* at least 9 pixels"):
        net(torch.rand(1, 3, *size, dtype=torch.float64))


@pytest.mark.usefixtures("as_users_run_it")
def test_masks_with_a_channel_dimension_are_refused(net, image, mask):
    with pytest.raises(ValueError, match=r"`mask` must have shape \(2, 32, 16\) .* got \(2, 1, 32, 16\)"):
        net(image, mask[:, None])


def test_gradients_reach_every_visible_pixel_and_parameter(net, image, mask):
    image.requires_grad_()
    net(image, mask).square().sum().backward()
    assert (image.grad.abs().sum(1) > 0).equal(mask == 0)
    assert all(parameter.grad.abs().sum() > 0 for parameter in net.parameters())


def test_no_mask_token_is_stored(net):
    assert not [name for name in net.state_dict() if "token" in name]


@pytest.mark.usefixtures("as_users_run_it")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"decoder": False}, "`decoder` must be True, got False: the published network cannot run without"),
        ({"heads": (1, 2, 4)}, r"`num_blocks` and `heads` need an entry for each of 4 levels, got .* \[1, 2, 4\]"),
        ({"num_blocks": (1,)}, r"`num_blocks` and `heads` need an entry for each of 4 levels, got \[1\] and"),
        ({"heads": (1, 5, 4, 8)}, "`heads` must divide the widths of their blocks, got 5 for 24 channels"),
        ({"heads": (1, 2, 3, 8)}, "`heads` must divide the widths of their blocks, got 3 for 40 channels"),
        ({"dim": 16}, "`dim` must be a multiple of 6, .* got 16"),
        ({"dim": 0}, "`dim` must be a multiple of 6, .* got 0"),
        ({"ffn_expansion_factor": 0.01}, "`ffn_expansion_factor` leaves no channels of 12, got 0.01"),
    ],
    ids=["decoder", "levels_of_heads", "levels_of_blocks", "heads", "heads_of_prompts", "dim", "no_dim", "expansion"],
)
def test_contradicting_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        PromptIR(**(SMALL | arguments))


# RGB at the border, and the ranking.


def test_rgb_networks_normalise_on_the_way_in_and_back_on_the_way_out(net, image, mask):
    rgb = RGBPromptIR(**SMALL).double().eval()
    rgb.load_state_dict(net.state_dict())
    normalised = (image - rgb.mean) / rgb.std
    torch.testing.assert_close((rgb(image) - rgb.mean) / rgb.std, net(normalised), rtol=0, atol=1e-10)
    torch.testing.assert_close((rgb(image, mask) - rgb.mean) / rgb.std, net(normalised, mask), rtol=0, atol=1e-10)
    assert [name for name, _ in rgb.named_modules()] == [name for name, _ in net.named_modules()]


def test_every_layer_can_be_ranked():
    network = RGBPromptIR(**SMALL).eval()
    data = rank_layers(network, torch.rand(1, 3, 24, 16), n_steps=2).dataset
    owners = [name for name, module in network.named_modules() if name and any(True for _ in module.parameters(False))]
    assert data["layer"].values.tolist() == owners
    assert (data["score"] > 0).all()
    # An attention and its last projection give the same tensor, and so do a prompt and its convolution.
    tensor = dict(zip(owners, data["alias_of"].values.tolist(), strict=True))
    pairs = {f"{name}.project_out": name for name in owners if name.endswith(".attn")}
    pairs |= {f"prompt{level}.conv3x3": f"prompt{level}" for level in (1, 2, 3)}
    assert {inner: tensor[inner] for inner in pairs} == {inner: tensor[outer] for inner, outer in pairs.items()}
    assert len(set(tensor.values())) == len(owners) - len(pairs)
