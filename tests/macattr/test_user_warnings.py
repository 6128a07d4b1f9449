"""Warnings name the line of the user's script that caused them."""

import subprocess
import sys

SCRIPT = """
import torch
from torch import nn
from macattr import SelectionRule, rank_layers

network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 40, 3), nn.Conv2d(40, 3, 1)).eval()
importance = rank_layers(network, torch.rand(1, 3, 8, 8), "depth")
importance.top(0.4)
importance.select(SelectionRule(count=1))
"""


def test_a_warning_of_a_selection_points_at_the_line_of_the_script(tmp_path):
    file = tmp_path / "script.py"
    file.write_text(SCRIPT)
    ran = subprocess.run([sys.executable, "-W", "always", str(file)], capture_output=True, text=True, timeout=120)
    lines = [line for line in ran.stderr.splitlines() if "UserWarning" in line]
    assert [line.partition(": UserWarning")[0] for line in lines] == [f"{file}:8", f"{file}:9"]
