"""The model card: the figure shows every network and every degradation, and the files are those that the text names."""

import hashlib
import re

from ram_models.experiments import card
from ram_models.networks.checkpoints import BUNDLED


def test_the_figure_shows_every_degradation(monkeypatch):
    monkeypatch.setattr(card, "SIZE", 16)
    loss, psnr, *panels = card.draw_card().axes
    assert loss.get_ylabel() == "mean absolute error"
    assert len(psnr.lines) >= 2
    titles = [axes.get_title() for axes in panels if axes.get_title()]
    assert titles[0] == "degraded"
    assert titles[-1] == "clean"
    assert len(panels) == 3 * len(titles)


def test_the_denoiser_is_shown_to_denoise():
    titles = [axes.get_title() for axes in card.draw_denoised(64).axes]
    noisy, denoised = ([float(re.search(r"([\d.]+) dB", t)[1]) for t in titles[place::3]] for place in (0, 1))
    assert [title for title in titles if title == "clean"] == ["clean"] * len(card.DENOISED)
    assert all(after > before + 4 for before, after in zip(noisy, denoised, strict=True))


def test_the_text_names_every_file_with_its_hash():
    text = (BUNDLED / "README.md").read_text()
    named = dict(re.findall(r"`(\S+)\.safetensors` \| `([0-9a-f]{64})`", text))
    files = {file.stem: hashlib.sha256(file.read_bytes()).hexdigest() for file in BUNDLED.glob("*.safetensors")}
    assert named == files
