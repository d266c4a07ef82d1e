"""Folders of images that cannot be prepared as they are, and what is said of each image."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from effconv_data import read_split
from PIL import Image

spec = importlib.util.spec_from_file_location(
    "picture_folder", Path(__file__).with_name("picture_folder.py")
)
picture_folder = importlib.util.module_from_spec(spec)
spec.loader.exec_module(picture_folder)
picture, divided = picture_folder.picture, picture_folder.divided
undivided, counted = picture_folder.undivided, picture_folder.counted
run = picture_folder.run
source, out = picture_folder.source, picture_folder.out


def cut(path):
    path.write_bytes(path.read_bytes()[:60])


def spoil(path):
    path.write_bytes(b"\x89PNG\r\n\x1a\nbut no image")


def deep(path):
    Image.fromarray(np.zeros((5, 6), np.uint16)).save(path)


def svg(path):
    path.write_text("<svg/>")


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (cut, "cannot be decoded"),
        (spoil, "cannot be decoded"),
        (svg, "cannot be decoded"),
        (empty, "cannot be decoded"),
        (deep, "mode I;16, more than 8 bits"),
    ],
)
def test_a_bad_image_is_named(change, message, workers, source, out):
    divided(source)
    change(source / "test" / "rose" / "1.png")
    with pytest.raises(ValueError, match=rf"test/rose/1.png is an image .*{message}"):
        run(source, out, workers=workers)
    assert not (out / "index.json").exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_all_that_is_wrong_is_told_at_once_and_nothing_is_written(workers, source, out):
    divided(source, classes=("iris", "rose", "tulip"))
    cut(source / "train" / "iris" / "0.png")
    spoil(source / "train" / "rose" / "1.png")
    deep(source / "test" / "iris" / "2.png")
    picture(source / "test" / "rose" / "odd.png", (9, 5))
    picture(source / "test" / "weed" / "0.png")
    for number in range(3):
        (source / "test" / "tulip" / f"{number}.png").unlink()
    with pytest.raises(ValueError, match="has 6 problems") as raised:
        run(source, out, workers=workers)
    told = str(raised.value)
    for what in ("iris/0.png", "rose/1.png", "iris/2.png", "odd.png", "weed", "tulip"):
        assert what in told
    assert "\n" not in told
    assert not out.exists()


def test_broken_images_can_be_left_out_and_are_named(source, tmp_path):
    made = divided(source)
    cut(source / "train" / "iris" / "0.png")
    deep(source / "test" / "rose" / "2.png")
    left = run(source, tmp_path / "a" / "flowers", skip_broken=True)
    assert left.samples == {"train": 5, "test": 5}
    (note,) = left.notes
    assert "2 images" in note
    assert "train/iris/0.png, test/rose/2.png" in note
    found = read_split(tmp_path / "a" / "flowers", "train")
    pixels, labels = made["train"]
    wanted = pixels.transpose(0, 3, 1, 2)[1:]
    assert counted(found.images.numpy(), found.labels) == counted(wanted, labels[1:])
    for path in ("train/iris/0.png", "test/rose/2.png"):
        (source / path).unlink()
    run(source, tmp_path / "b" / "flowers")
    for path in (tmp_path / "b" / "flowers").glob("*.tar"):
        assert path.read_bytes() == (tmp_path / "a" / "flowers" / path.name).read_bytes()


def test_a_class_of_broken_images_alone_is_refused(source, out):
    divided(source)
    for number in range(3):
        empty(source / "train" / "rose" / f"{number}.png")
    with pytest.raises(ValueError, match=r"rose.*train"):
        run(source, out, skip_broken=True)
    assert not out.exists()


def test_a_class_is_one_problem_whether_it_had_images_or_not(source, out):
    divided(source)
    for number in range(3):
        (source / "train" / "iris" / f"{number}.png").unlink()
        empty(source / "train" / "rose" / f"{number}.png")
    with pytest.raises(ValueError, match="has 2 problems") as raised:
        run(source, out, skip_broken=True)
    told = str(raised.value)
    assert told.count("iris") == told.count("rose") == 1
    assert not out.exists()


def test_a_long_list_of_problems_ends_in_their_number(source, out):
    undivided(source, {"iris": 60})
    for path in source.rglob("*.png"):
        empty(path)
    with pytest.raises(ValueError, match=r"60 .* 10 "):
        run(source, out, splits=["train"])


@pytest.mark.parametrize(
    ("layout", "options", "message"),
    [
        (["train/iris/a.png"], {}, "neither test nor val .*--splits train"),
        (["test/iris/a.png"], {}, "has no folder train .*splits that are there: test"),
        (["train/a/a.png", "test/a/a.png"], {"splits": ["val"]}, "has no folder val"),
        (["train/a/a.png", "test/a/a.png"], {"test_fraction": 0.1}, "is divided into train, test"),
        (["train/a/a.png", "test/b/a.png"], {}, "class b that train does not have"),
        (["train/a/a.png", "train/b/x.txt", "test/a/a.png"], {}, "class b .* has no images"),
        (["a.png"], {"splits": ["train"]}, "has no folder for each class"),
        (["a/a.png"], {"splits": ["val"]}, "is not divided"),
        (["a/a.png"], {"splits": ["train"], "test_fraction": 0.1}, "only train is to be prepared"),
        (["a/a.png"], {"test_fraction": 0.1}, "less than one image of any class"),
        (["a/a.png"], {"test_fraction": 1.0}, "test_fraction is 1.0; pass a number between"),
        (["a/a.png"], {"image_size": 0}, "image_size is 0"),
        (["a/a.png"], {"splits": ["dev"]}, "splits are .*'dev'.*train, val, test"),
    ],
)
def test_layouts_and_options_that_do_not_fit(layout, options, message, source, out):
    for name in layout:
        picture(source / name) if name.endswith("png") else (source / name).parent.mkdir()
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        run(source, out, **options)
    assert not out.exists()


def test_a_folder_that_does_not_exist(source, out):
    with pytest.raises(FileNotFoundError, match="source is not a folder"):
        run(source, out)
