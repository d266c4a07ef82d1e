"""Two runs of Table 1 on 64 images, as a process of their own does them."""

import sys
from dataclasses import replace
from pathlib import Path

import torch

from tools.reproduce import __main__ as command
from tools.reproduce.rows import SCALES, Row

SMOKE = SCALES["smoke"]["mnist"]
SMALL = replace(
    SMOKE, pictures=64, test_pictures=16, train=replace(SMOKE.train, batch_size=32, epochs=2)
)
ROWS = [Row("mnist", "cifar_resnet20", 0.66e6, sizes) for sizes in ("found", "reversed")]
BEGUN = "begun"


def main(words: list[str]) -> int:
    """Search and train, and train a control of the plan that was found; the word is the folder."""
    (folder,) = map(Path, words)
    torch.set_num_threads(1)
    SCALES["smoke"]["mnist"] = SMALL
    command.runs_of = lambda name, scale: [(row, 0) for row in ROWS]
    sys.argv = ["reproduce", "table1", "--scale", "smoke", "--device", "cpu"]
    sys.argv += ["--runs", str(folder / "runs"), "--out", str(folder)]
    folder.mkdir(exist_ok=True)
    (folder / BEGUN).touch()
    return command.main()
