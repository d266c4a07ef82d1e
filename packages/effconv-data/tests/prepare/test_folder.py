"""A folder of images becomes shards."""

import hashlib
import importlib.util
import json
import multiprocessing
import os
from collections import Counter
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


@pytest.mark.parametrize("splits", [("train", "test"), ("train", "val"), ("train", "val", "test")])
def test_a_divided_folder(splits, source, out):
    made = divided(source, splits)
    assert run(source, out).samples == dict.fromkeys(splits, 6)
    for split, (pixels, labels) in made.items():
        found = read_split(out, split)
        assert found.classes == ("iris", "rose")
        wanted = pixels.transpose(0, 3, 1, 2)
        assert counted(found.images.numpy(), found.labels) == counted(wanted, labels)
    index = json.loads((out / "index.json").read_text())
    assert index["name"] == "flowers"
    assert index["image_shape"] == [3, 5, 6]


def test_splits_can_be_named(source, out):
    divided(source, ("train", "val", "test"))
    assert run(source, out, splits=["val", "train"]).samples == {"train": 6, "val": 6}


def test_grey_images_stay_grey_and_one_in_colour_colours_all(source, tmp_path):
    made = divided(source, mode="L")
    run(source, tmp_path / "grey")
    found = read_split(tmp_path / "grey", "train")
    assert counted(found.images.numpy(), found.labels) == counted(
        made["train"][0][:, None], made["train"][1]
    )
    picture(source / "test" / "rose" / "last.png")
    run(source, tmp_path / "colour")
    assert read_split(tmp_path / "colour", "train").images.shape == (6, 3, 5, 6)
    grey = read_split(tmp_path / "colour", "train").images
    assert counted(grey[:, 0].numpy(), [0] * 6) == counted(made["train"][0], [0] * 6)
    assert (grey[:, :1] == grey).all()


def test_formats_and_modes_are_all_read(source, out):
    """Each file is as Pillow converts it, with the transparency dropped."""
    folder, wanted = source / "train" / "all", []
    for name, mode in [
        ("a.jpg", "RGB"),
        ("b.JPEG", "L"),
        ("c.png", "RGBA"),
        ("d.png", "LA"),
        ("e.bmp", "RGB"),
        ("f.webp", "RGB"),
        ("g.gif", "L"),
        ("h.tif", "CMYK"),
        ("i.ppm", "RGB"),
        ("j.pgm", "L"),
    ]:
        picture(folder / name, mode=mode)
        with Image.open(folder / name) as image:
            wanted.append(np.asarray(image.convert("RGB")).transpose(2, 0, 1))
    run(source, out, splits=["train"])
    found = read_split(out, "train")
    assert counted(found.images.numpy(), found.labels) == counted(wanted, [0] * 10)


def halves(path, size, **options):
    """Write an image of two halves, left black and right white."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((size[1], size[0]), np.uint8)
    pixels[:, size[0] // 2 :] = 255
    Image.fromarray(pixels).save(path, **options)


def test_photographs_are_turned_upright(source, out):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held so that the picture must be turned clockwise
    halves(source / "train" / "all" / "a.jpg", (32, 16), exif=exif, quality=100)
    run(source, out, splits=["train"])
    (image,) = read_split(out, "train").images
    assert image.shape == (1, 32, 16)
    assert image[0, :15].max() < 40
    assert image[0, 17:].min() > 215


def test_images_are_cropped_to_the_middle_and_resized(source, out):
    folder = source / "train" / "all"
    folder.mkdir(parents=True)
    wide = np.zeros((8, 24), np.uint8)
    wide[:, 8:16] = 200
    Image.fromarray(wide).save(folder / "wide.png")
    tall = np.zeros((30, 10), np.uint8)
    tall[10:20] = 90
    Image.fromarray(tall).save(folder / "tall.png")
    notes = run(source, out, splits=["train"], image_size=4).notes
    images = sorted(read_split(out, "train").images, key=lambda image: image.max())
    assert [image.shape for image in images] == [(1, 4, 4)] * 2
    # The black beside the crop reaches into its edge a little, as it does in any resizing.
    for image, value in zip(images, (90, 200), strict=True):
        assert (image.float() / value - 1).abs().max() < 0.1
    assert notes == ("images were resized and cropped to 4 x 4 pixels",)


def test_images_of_the_asked_size_are_untouched(source, out):
    made = divided(source, size=(7, 7))
    assert run(source, out, image_size=7).notes == ()
    found = read_split(out, "train")
    wanted = made["train"][0].transpose(0, 3, 1, 2)
    assert counted(found.images.numpy(), found.labels) == counted(wanted, made["train"][1])


def test_images_of_several_sizes_need_one(source, out):
    divided(source)
    picture(source / "test" / "rose" / "odd.png", (9, 5))
    with pytest.raises(ValueError, match=r"6 x 5 .*odd\.png 9 x 5.*--image-size"):
        run(source, out)
    assert not out.exists()


def test_a_fraction_of_every_class_becomes_the_test_split(source, tmp_path):
    undivided(source, {"iris": 20, "rose": 10, "yew": 1})
    run(source, tmp_path / "a", test_fraction=0.2)
    train, test = (read_split(tmp_path / "a", split) for split in ("train", "test"))
    assert Counter(test.labels.tolist()) == {0: 4, 1: 2}
    assert Counter(train.labels.tolist()) == {0: 16, 1: 8, 2: 1}
    everything = [np.asarray(Image.open(path)) for path in sorted(source.rglob("*.png"))]
    both = np.concatenate([train.images.numpy(), test.images.numpy()])
    labels = [*train.labels.tolist(), *test.labels.tolist()]
    wanted = [image.transpose(2, 0, 1) for image in everything]
    assert counted(both, labels) == counted(wanted, [0] * 20 + [1] * 10 + [2])
    # The seed chooses.
    run(source, tmp_path / "b", test_fraction=0.2, seed=1)
    run(source, tmp_path / "c", test_fraction=0.2)
    chosen = {
        name: counted(read_split(tmp_path / name, "test").images.numpy(), [0] * 6)
        for name in ("a", "b", "c")
    }
    assert chosen["a"] == chosen["c"] != chosen["b"]


def test_an_undivided_folder_needs_a_word_on_testing(source, out):
    undivided(source, {"iris": 3})
    with pytest.raises(ValueError, match=r"--test-fraction 0\.1.*--splits train"):
        run(source, out)
    assert run(source, out, splits=["train"]).samples == {"train": 3}


def test_a_class_may_be_called_train(source, out):
    undivided(source, {"train": 3, "tram": 2})
    run(source, out, splits=["train"])
    found = read_split(out, "train")
    assert found.classes == ("train", "tram")
    assert Counter(found.labels.tolist()) == {0: 3, 1: 2}


def test_other_files_are_left_out_and_counted(source, out):
    divided(source)
    (source / "train" / "rose" / "list.csv").write_text("a,b")
    (source / "train" / "rose" / ".DS_Store").write_text("hidden")
    (source / "train" / ".cache").mkdir()
    picture(source / "train" / "rose" / "deep" / "er.png")
    made = run(source, out)
    assert made.notes == ("1 files without the suffix of an image were left out",)
    assert made.samples == {"train": 7, "test": 6}
    assert read_split(out, "train").classes == ("iris", "rose")


SYSTEMS = (
    *(".thumbnails", "@eaDir", "__MACOSX", "lost+found", "#recycle", "$RECYCLE.BIN"),
    *("System Volume Information", "@Recycle", "deep/.cache"),
)


@pytest.mark.parametrize("place", SYSTEMS)
def test_hidden_folders_hold_no_images(place, source, out):
    undivided(source, {"iris": 8, "rose": 8})
    for path in sorted(source.rglob("*.png")):
        copy = path.parent / place / path.name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    made = run(source, out, test_fraction=0.25)
    assert made.samples == {"train": 12, "test": 4}
    assert made.notes == ("16 images in hidden folders were left out",)
    assert json.loads((out / "index.json").read_text())["notes"] == list(made.notes)


@pytest.mark.parametrize("place", SYSTEMS[:8])
def test_hidden_folders_are_no_classes(place, source, out):
    undivided(source, {"iris": 3})
    picture(source / place / "x.png")
    run(source, out, splits=["train"])
    assert read_split(out, "train").classes == ("iris",)


def test_a_class_called_train_may_have_hidden_folders(source, out):
    undivided(source, {"train": 3, "tram": 2})
    for name in ("train", "tram"):
        picture(source / name / "@eaDir" / "x.png")
    assert run(source, out, splits=["train"]).samples == {"train": 5}
    assert read_split(out, "train").classes == ("train", "tram")


@pytest.mark.parametrize("division", [undivided, divided])
def test_images_in_no_class_folder_are_left_out_and_counted(division, source, out):
    if division is undivided:
        undivided(source, {"iris": 3, "rose": 3})
    else:
        divided(source)
    for name in ("loose.png", "other.jpg", ".hidden.png"):
        picture(source / name)
    made = run(source, out, splits=["train"])
    assert made.notes == ("2 images that lie in no class folder were left out",)
    assert read_split(out, "train").classes == ("iris", "rose")


@pytest.mark.parametrize("mixed", [("train",), ("test",), ("train", "test")])
@pytest.mark.parametrize("options", [{}, {"test_fraction": 0.5}, {"splits": ["train"]}])
def test_a_split_with_images_beside_its_classes_is_not_taken_for_a_class(
    mixed, options, source, out
):
    divided(source)
    for name in mixed:
        picture(source / name / "loose.png")
    with pytest.raises(ValueError, match=rf"{mixed[-1]} has images beside its class folders"):
        run(source, out, **options)
    assert not out.exists()


def test_copies_of_train_in_test_are_noted(source, out):
    divided(source)
    path = source / "train" / "iris" / "0.png"
    (source / "test" / "rose" / "same.png").write_bytes(path.read_bytes())
    assert run(source, out).notes == ("1 images of test are also in train: test/rose/same.png",)


def test_names_of_any_bytes(source, out):
    picture(source / "train" / os.fsdecode(b"caf\xe9") / os.fsdecode(b"\xff.png"))
    run(source, out, splits=["train"])
    assert read_split(out, "train").classes == ("caf\\xe9",)


def test_index_names_the_sum_of_a_listing_of_sums(source, out):
    divided(source)
    run(source, out)
    paths = sorted(path for path in source.rglob("*.png"))
    lines = (
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(source)}\n"
        for path in paths
    )
    assert json.loads((out / "index.json").read_text())["source"] == [
        {
            "folder": "source",
            "files": 12,
            "sha256": hashlib.sha256("".join(lines).encode()).hexdigest(),
        }
    ]


def test_any_number_of_workers_writes_the_same(source, tmp_path):
    undivided(source, {"iris": 130, "rose": 90})
    for workers in (1, 3):
        folder = tmp_path / str(workers) / "out"
        run(source, folder, workers=workers, shard_samples=40, image_size=4, test_fraction=0.25)
    one, three = (
        {path.name: path.read_bytes() for path in (tmp_path / str(workers) / "out").iterdir()}
        for workers in (1, 3)
    )
    assert one == three
    assert len(one) == 1 + 5 + 2


def test_a_killed_run_goes_on_and_a_changed_image_is_noticed(source, out, tmp_path):
    undivided(source, {"iris": 30})
    options = {"splits": ["train"], "shard_samples": 5}

    def die():
        def dying(*arguments):
            replaced.append(arguments)
            if len(replaced) == 4:
                os.kill(os.getpid(), 9)
            return replace(*arguments)

        replaced, replace = [], type(source).replace
        type(source).replace = dying
        run(source, out, **options)

    process = multiprocessing.get_context("fork").Process(target=die)
    process.start()
    process.join()
    assert process.exitcode == -9
    first = sorted(source.rglob("*.png"))[0]
    before = first.read_bytes()
    picture(first)
    with pytest.raises(FileExistsError, match="interrupted run with another source"):
        run(source, out, **options)
    first.write_bytes(before)
    assert run(source, out, **options).kept == 2
    run(source, tmp_path / "other" / "flowers", **options)
    for path in out.iterdir():
        assert path.read_bytes() == (tmp_path / "other" / "flowers" / path.name).read_bytes()
