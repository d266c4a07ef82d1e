"""Tars of samples, and the pixels that are read from them."""

import io
import tarfile

import numpy as np
import torch
from effconv_data import load


def written(path, members, pack=bytes):
    """Write a tar of (name or TarInfo, bytes)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as file:
        for name, data in members:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    path.write_bytes(pack(out.getvalue()))
    return path


def samples(encode, key="{:04d}", count=4):
    return [
        (f"{key.format(i)}.{part}", data)
        for i in range(count)
        for part, data in (
            ("png", encode(np.full((3, 4), 10 * i % 256, np.uint8))),
            ("cls", b"%d" % (i % 2)),
        )
    ]


def pixels(path, **options):
    batches = load(str(path), split="test", batch_size=2, normalized=False, **options)
    return torch.cat([images for images, _ in batches])[:, 0, 0, 0].tolist()
