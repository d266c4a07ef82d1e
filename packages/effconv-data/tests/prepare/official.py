"""Every official archive, built byte for byte."""

import gzip
import io
import pickle
import struct
import tarfile
from collections import Counter

import numpy as np
from effconv_data.prepare import prepare

CIFAR_WORDS = "airplane automobile bird cat deer dog frog horse ship truck"
STL_WORDS = "airplane bird car cat deer dog horse monkey ship truck"
CIFAR_NAMES, STL_NAMES = CIFAR_WORDS.split(), STL_WORDS.split()


def samples(seed, count, channels, side, classes=10):
    """`(N, H, W, C)` uint8, no two alike, and labels."""
    random = np.random.default_rng(seed)
    pixels = random.integers(256, size=(count, side, side, channels), dtype=np.uint8)
    return pixels, random.integers(classes, size=count).tolist()


def write_tar(path, members, links=()):
    with tarfile.open(path, "w:gz") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        for name, target in links:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            tar.addfile(member)


def write_all(folder, files):
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def packed(path, made_and_files, names):
    """Write the files as one tar; give what was made, and its classes."""
    made, files = made_and_files
    write_tar(path, files)
    return made, names


def unpacked(folder, made_and_files, names):
    """Write the files as they are; give what was made, and its classes."""
    made, files = made_and_files
    write_all(folder, files)
    return made, names


def bytes_of(pixels, order):
    """Images in planes, one pixel at a time: slow, and plain to see."""
    out = bytearray()
    for image in pixels:
        height, width, channels = image.shape
        for channel in range(channels):
            for i in range(height):
                for j in range(width):
                    y, x = (i, j) if order == "rows" else (j, i)
                    out.append(image[y, x, channel])
    return bytes(out)


def idx(pixels, magic=None):
    array = np.asarray(pixels, dtype=np.uint8)
    sizes = array.shape[:3]
    magic = 0x00000800 + len(sizes) if magic is None else magic
    return struct.pack(f">{1 + len(sizes)}I", magic, *sizes) + array.tobytes()


def mnist(folder, name="{}-{}-{}-ubyte.gz"):
    made = {"train": samples(1, 30, 1, 28), "test": samples(2, 20, 1, 28)}
    for split, stem in (("train", "train"), ("test", "t10k")):
        pixels, labels = made[split]
        for part, data in (("images-idx3", idx(pixels)), ("labels-idx1", idx(labels))):
            path = folder / name.format(stem, *part.split("-"))
            path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return made, list("0123456789")


def mnist_plain(folder):
    return mnist(folder, "{}-{}-{}-ubyte")


def mnist_dotted(folder):
    return mnist(folder, "{}-{}.{}-ubyte")


# CIFAR-10: Python 2 wrote its pickles, opcode by opcode as below.


def python2(value):
    if isinstance(value, dict):
        items = b"".join(python2(key) + python2(item) for key, item in value.items())
        return b"}(" + items + b"u"
    if isinstance(value, list):
        return b"](" + b"".join(map(python2, value)) + b"e"
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value)
    if isinstance(value, str):
        return b"U" + bytes([len(value)]) + value.encode()
    rows, columns = value.shape
    return (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01" + python2(rows) + python2(columns) + b"\x86"
        b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xff"
        b"K\x00tb\x89T" + struct.pack("<i", value.nbytes) + value.tobytes() + b"tb"
    )


def cifar():
    pixels, labels = samples(3, 40, 3, 32)
    batches = [f"data_batch_{i}" for i in range(1, 6)]
    # Batches of several sizes, so that none can stand for another.
    cuts = np.split(np.arange(40), [9, 17, 24, 30])
    parts = {
        batch: (pixels[cut], [labels[i] for i in cut])
        for batch, cut in zip(batches, cuts, strict=True)
    }
    parts["test_batch"] = samples(4, 12, 3, 32)
    return {"train": (pixels, labels), "test": parts["test_batch"]}, parts


def cifar_python_files(dump=lambda value: b"\x80\x02" + python2(value) + b"."):
    made, parts = cifar()
    files = {"batches.meta": dump({"num_cases_per_batch": 9, "label_names": CIFAR_NAMES})}
    for name, (pixels, labels) in parts.items():
        data = np.frombuffer(bytes_of(pixels, "rows"), np.uint8).reshape(len(labels), 3072)
        files[name] = dump({"batch_label": name, "labels": labels, "data": data})
    return made, {f"cifar-10-batches-py/{name}": data for name, data in files.items()}


def cifar_binary_files():
    made, parts = cifar()
    files = {"batches.meta.txt": ("\n".join(CIFAR_NAMES) + "\n\n").encode()}
    for name, (pixels, labels) in parts.items():
        rows = (
            bytes([label]) + bytes_of(pixels[i : i + 1], "rows") for i, label in enumerate(labels)
        )
        files[f"{name}.bin"] = b"".join(rows)
    return made, {f"cifar-10-batches-bin/{name}": data for name, data in files.items()}


def cifar_python_packed(folder):
    return packed(folder / "cifar-10-python.tar.gz", cifar_python_files(), CIFAR_NAMES)


def cifar_python_unpacked(folder):
    return unpacked(folder, cifar_python_files(), CIFAR_NAMES)


def cifar_python_newly_pickled(folder):
    made, files = cifar_python_files(pickle.dumps)
    write_all(folder, {name.split("/")[1]: data for name, data in files.items()})
    return made, CIFAR_NAMES


def cifar_binary_packed(folder):
    return packed(folder / "cifar-10-binary.tar.gz", cifar_binary_files(), CIFAR_NAMES)


def cifar_binary_unpacked(folder):
    return unpacked(folder, cifar_binary_files(), CIFAR_NAMES)


# STL-10


def stl_files():
    made = {"train": samples(5, 5, 3, 96), "test": samples(6, 3, 3, 96)}
    files = {"class_names.txt": "\n".join(STL_NAMES).encode(), "unlabeled_X.bin": b"\0" * 27648}
    for split, (pixels, labels) in made.items():
        files[f"{split}_X.bin"] = bytes_of(pixels, "columns")
        files[f"{split}_y.bin"] = bytes(label + 1 for label in labels)
    return made, {f"stl10_binary/{name}": data for name, data in files.items()}


def stl_packed(folder):
    return packed(folder / "stl10_binary.tar.gz", stl_files(), STL_NAMES)


def stl_unpacked(folder):
    return unpacked(folder, stl_files(), STL_NAMES)


# ImageNet


def imagenet(folder, side, write):
    made = {"train": samples(7, 40, 3, side, 1000), "test": samples(8, 6, 3, side, 1000)}
    batches = np.split(np.arange(40), [7, 12, 15, 19, 22, 28, 30, 33, 36])
    parts = {
        f"train_data_batch_{number}": (made["train"][0][cut], [made["train"][1][i] for i in cut])
        for number, cut in enumerate(batches, 1)
    }
    parts["val_data"] = made["test"]
    for name, (pixels, labels) in parts.items():
        rows = np.frombuffer(bytes_of(pixels, "rows"), np.uint8).reshape(len(labels), -1)
        write(folder / name, rows, [label + 1 for label in labels])
    return made, [str(label) for label in range(1, 1001)]


def write_pickle(path, rows, labels):
    batch = {"data": rows, "labels": labels, "mean": rows.mean(axis=0)}
    path.write_bytes(pickle.dumps(batch, protocol=4))


def write_npz(path, rows, labels):
    np.savez(path, data=rows, labels=np.array(labels))


def imagenet32_pickles(folder):
    return imagenet(folder, 32, write_pickle)


def imagenet32_npz(folder):
    return imagenet(folder, 32, write_npz)


def imagenet16_npz(folder):
    return imagenet(folder, 16, write_npz)


def imagenet64_npz_named(folder):
    made, _ = imagenet(folder, 64, write_npz)
    names = [f"n{label:08d} thing" for label in range(1000, 0, -1)]
    lines = [f"n{label:08d} {1001 - label} thing\n" for label in range(1, 1001)]
    (folder / "map_clsloc.txt").write_text("".join(lines))
    return made, names


FORMATS = [
    mnist,
    mnist_plain,
    mnist_dotted,
    cifar_python_packed,
    cifar_python_unpacked,
    cifar_python_newly_pickled,
    cifar_binary_packed,
    cifar_binary_unpacked,
    stl_packed,
    stl_unpacked,
    imagenet32_pickles,
    imagenet32_npz,
    imagenet16_npz,
    imagenet64_npz_named,
]


def run(format, source, out, **options):
    """Prepare what a format's function has written."""
    set_name = format.__name__.split("_")[0]
    name = {"cifar": "cifar10", "stl": "stl10"}.get(set_name, set_name)
    if name.startswith("imagenet"):
        options["image_size"] = int(name.removeprefix("imagenet"))
        name = "imagenet32"
    options = {"checksum": False, "workers": 1, **options}
    return prepare(name, source, out=out, **options)


def counted(pixels, labels):
    """Images `(N, C, H, W)` and labels, whatever their order."""
    rows = (np.ascontiguousarray(image).tobytes() for image in pixels)
    return Counter(zip(rows, map(int, labels), strict=True))
