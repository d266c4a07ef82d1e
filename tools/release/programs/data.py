"""A folder of pictures made a set, which is verified and read; and a drawn set."""

from pathlib import Path

import torch
from effconv_data import load, synthetic, verify
from effconv_data.prepare import prepare_folder
from PIL import Image

for label, name in enumerate(("dark", "light")):
    for number in range(4):
        photo = Path("photos", name, f"{number}.png")
        photo.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (200 * label + number, 0, 0)).save(photo)
prepare_folder("photos", out="set", test_fraction=0.25)
assert [(r.class_counts, r.problems) for r in verify("set").values()] == [
    ((3, 3), []),
    ((1, 1), []),
]
images, labels = next(iter(load("set", root=".", batch_size=4, normalized=False)))
assert (images.shape, images.dtype) == ((4, 3, 8, 8), torch.uint8)
assert ((images[:, 0, 0, 0] >= 200).long() == labels).all()
assert next(iter(synthetic(5, samples=64, batch_size=16)))[0].shape == (16, 1, 24, 24)
