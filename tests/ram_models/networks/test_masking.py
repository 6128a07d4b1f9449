import pytest
import torch

from ram_models.networks.masking import hide, random_mask, restore_with_twins


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def image():
    return torch.rand(2, 3, 8, 12, dtype=torch.float64)


@pytest.fixture
def mask(generator):
    return random_mask(2, 8, 12, generator).double()


@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.75])
@pytest.mark.parametrize("patch_size", [1, 2, 4])
def test_every_mask_hides_the_same_share(generator, ratio, patch_size):
    masks = random_mask(5, 8, 12, generator, ratio, patch_size)
    blocks = 8 * 12 // patch_size**2
    assert masks.unique().tolist() == [0, 1]
    assert masks.sum((1, 2)).tolist() == [round(ratio * blocks) * patch_size**2] * 5


def test_masks_of_a_batch_differ(generator):
    masks = random_mask(2, 8, 12, generator)
    assert not masks[0].equal(masks[1])


def test_masks_hide_whole_blocks(generator):
    masks = random_mask(3, 8, 12, generator, patch_size=4)
    blocks = masks.unfold(1, 4, 4).unfold(2, 4, 4).flatten(3)
    assert blocks.amin(-1).equal(blocks.amax(-1))


def test_every_pixel_is_hidden_equally_often(generator):
    frequency = random_mask(4000, 4, 4, generator, ratio=0.25).mean(0)
    # Binomial, 4000 draws at 0.25: standard deviation 0.007, five of them.
    torch.testing.assert_close(frequency, torch.full((4, 4), 0.25), rtol=0, atol=0.035)


def test_a_generator_in_the_same_state_gives_the_same_masks():
    masks = [random_mask(2, 8, 8, torch.Generator().manual_seed(3)) for _ in range(2)]
    assert masks[0].equal(masks[1])


def test_hidden_pixels_show_the_token_and_visible_ones_themselves(image, mask):
    shown = hide(image, mask, 0.7)
    hidden = mask.bool()[:, None].expand_as(image)
    assert (shown[hidden] == 0.7).all()
    assert shown[~hidden].equal(image[~hidden])


def test_fractional_masks_blend(image):
    got = hide(image, torch.full((2, 8, 12), 0.25, dtype=torch.float64), 1.0)
    torch.testing.assert_close(got, 0.75 * image + 0.25)


@pytest.mark.parametrize(
    "shape", [(1, 3, 1, 1), (1, 3, 8, 12), (2, 3, 8, 12)], ids=["colour", "for_all_images", "for_each_image"]
)
def test_tokens_broadcast(image, mask, shape):
    token = torch.rand(shape, dtype=torch.float64)
    got = hide(image, mask, token)
    torch.testing.assert_close(got, torch.where(mask[:, None] > 0, token.expand_as(image), image))


def test_twins_take_every_pixel_from_the_run_in_which_it_was_hidden(image, mask):
    runs = []

    def restore(shown, hidden):
        runs.append(hidden)
        return torch.full_like(shown, len(runs))

    restored = restore_with_twins(restore, image, mask)
    assert restored.equal((2 - mask)[:, None].expand_as(image))  # the first run where hidden first
    torch.testing.assert_close(runs[0] + runs[1], torch.ones_like(mask))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"patch_size": 5}, "`patch_size` 5 must divide the image, got 8x8"),
        ({"ratio": 0.0}, "`ratio` must leave hidden and visible blocks, got 0.0 of 64"),
        ({"ratio": 1.0}, "`ratio` must leave hidden and visible blocks, got 1.0 of 64"),
        ({"ratio": 0.01, "patch_size": 4}, "`ratio` must leave hidden and visible blocks, got 0.01 of 4"),
    ],
    ids=["patch_size", "nothing_hidden", "nothing_visible", "rounded_to_nothing"],
)
def test_impossible_masks_are_refused(generator, arguments, message):
    with pytest.raises(ValueError, match=message):
        random_mask(1, 8, 8, generator, **arguments)


@pytest.mark.parametrize(
    ("mask", "token", "message"),
    [
        (torch.zeros(2, 1, 8, 12), 0.0, r"`mask` must have shape \(2, 8, 12\) .*, got \(2, 1, 8, 12\)"),
        (torch.zeros(1, 8, 12), 0.0, r"`mask` must have shape \(2, 8, 12\) .*, got \(1, 8, 12\)"),
        (torch.zeros(2, 8, 12), torch.zeros(1, 3, 4, 4), r"mask token of shape \(1, 3, 4, 4\) does not fit .* \(2, 3"),
    ],
    ids=["mask_with_channel", "mask_of_one", "token_of_another_size"],
)
@pytest.mark.usefixtures("as_users_run_it")
def test_masks_and_tokens_that_do_not_fit_are_refused(image, mask, token, message):
    with pytest.raises(ValueError, match=message):
        hide(image, mask.double(), token)
