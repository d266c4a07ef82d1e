"""Where `load` finds shards and settings: sets, servers, pipes and patterns."""

import functools
import http.server
import threading

import pytest
import torch
from effconv_data import ShardError, load


@pytest.fixture
def server(sets):
    quiet = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(quiet, directory=str(sets))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("workers", [0, 2])
def test_from_a_web_server(streamed, same, sets, server, workers):
    local = streamed(sets)
    same(streamed(server, workers=workers), local)
    same(load(f"{server}/uneven", batch_size=4, resident=False), streamed(sets))
    with pytest.raises(FileNotFoundError, match="404"):
        load(f"{server}/nothing", batch_size=4)


def test_a_page_of_an_error_is_no_shard(sets, server):
    with pytest.raises(ShardError, match=r"train-00099\.tar .*404"):
        load([f"{server}/uneven/train-00099.tar"], batch_size=4)


@pytest.mark.parametrize(
    "source",
    [
        "{}/even/train-*.tar.gz",
        "{}/even/train-{{00000..00003}}.tar.gz",
        "{}/even/train-00000.tar.gz::{}/even/train-{{00001..00003}}.tar.gz",
    ],
)
def test_from_shards_without_an_index(streamed, same, sets, source):
    shards = load(source.format(sets, sets), batch_size=4, resident=False, workers=2)
    assert shards.classes == ("0", "1", "2")
    assert shards.samples == 24
    indexed = streamed(sets, "even")
    assert (shards.mean, shards.std) == (indexed.mean, indexed.std)
    same(shards, indexed)


@pytest.mark.parametrize("source", ["sets/even", "sets/even/train-*.tar.gz"])
@pytest.mark.parametrize("resident", [True, False])
def test_relative_places_stay_where_they_were(
    streamed, same, sets, source, resident, tmp_path, monkeypatch
):
    (tmp_path / "sets").symlink_to(sets)
    monkeypatch.chdir(tmp_path)
    root = None if "*" in source else "."
    given = load(source, root=root, batch_size=4, resident=resident, workers=0)
    monkeypatch.chdir("/")
    same(given, streamed(sets, "even"))


def test_from_a_pipe(streamed, same, sets):
    files = [f"pipe:cat {sets}/even/train-0000{number}.tar.gz" for number in range(4)]
    given = load(files, batch_size=4, resident=False, allow_commands=True)
    same(given, streamed(sets, "even"))
    with pytest.raises(ShardError, match="cannot be read"):
        load("pipe:cat /nothing/there.tar", batch_size=4, allow_commands=True)


def test_an_index_cannot_name_a_command(small_set):
    made = small_set()
    made.index["splits"]["train"]["shards"][0]["file"] = "pipe:touch harm #.tar"
    folder = made.write()
    (folder / "pipe:touch harm #.tar").write_bytes(b"")
    with pytest.raises(ShardError, match="cut off"):
        list(load(folder, batch_size=1, resident=False))
    assert not (folder / "harm").exists()


def test_no_shard_matches(tmp_path):
    with pytest.raises(FileNotFoundError, match="tar"):
        load(f"{tmp_path}/*.tar", batch_size=4)
    with pytest.raises(ValueError, match="name at least one"):
        load([], batch_size=4)


def test_load_takes_the_root_from_the_environment(small_set, monkeypatch):
    made = small_set("pets")
    root = made.write().parent
    monkeypatch.delenv("EFFCONV_DATA", raising=False)
    with pytest.raises(ValueError, match="EFFCONV_DATA"):
        load("pets", batch_size=2)
    given_root = load("pets", batch_size=2, root=root)
    monkeypatch.setenv("EFFCONV_DATA", str(root))
    for (x, y), (x_given, y_given) in zip(load("pets", batch_size=2), given_root, strict=True):
        assert torch.equal(x, x_given)
        assert torch.equal(y, y_given)
    with pytest.raises(FileNotFoundError, match=r"plants/index\.json"):
        load("plants", batch_size=2)


def test_load_normalises_every_split_by_the_whole_train_split(small_set):
    made = small_set("pets")
    root = made.write().parent
    pixels = made.pixels["train"] / 255
    for split, limit in (("train", None), ("train", 3), ("test", None), ("test", 1)):
        batches = load("pets", split=split, batch_size=1, root=root, limit=limit)
        assert batches.mean == pytest.approx(tuple(pixels.mean((0, 1, 2))))
        assert batches.std == pytest.approx(tuple(pixels.std((0, 1, 2))))


def test_load_shuffles_train_only(small_set):
    made = small_set("pets")
    root = made.write().parent
    train = load("pets", batch_size=2, root=root)
    assert (len(train), train.samples, train.name) == (3, 7, "pets")
    assert len(load("pets", batch_size=2, root=root, limit=4)) == 2
    test = load("pets", split="test", batch_size=2, root=root)
    assert [y.tolist() for _, y in test] == [made.labels["test"].tolist()]
    assert test.classes == ("cat", "dog", "eel")
    assert test.image_shape == (3, 6, 5)


def test_load_augments_cifar10_in_training_only(small_set):
    made = small_set("cifar10", shards={"train": [40], "test": [40]})
    root = made.write().parent

    def keep(images, generator):
        return images

    def pixels(**arguments):
        batches = load("cifar10", batch_size=40, root=root, **arguments)
        assert batches.mean == (0.4914, 0.4822, 0.4465)
        ((images, labels),) = batches
        return images, labels

    augmented, labels = pixels()
    plain, same_labels = pixels(augment=keep)
    assert torch.equal(labels, same_labels)
    assert not torch.equal(augmented, plain)
    again, _ = pixels()
    assert torch.equal(augmented, again)
    assert torch.equal(pixels(split="test")[0], pixels(split="test", augment=keep)[0])
