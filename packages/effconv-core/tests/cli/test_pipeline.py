"""A run in its folder: search, training, test and report."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from effconv_core import SizePlan, load, recipe
from effconv_core.cli.pipeline import (
    RunOptions,
    SearchOptions,
    check_options,
    fresh_cnn,
    original_sizes,
    placed,
    search_and_train,
    train_alone,
)
from effconv_core.cli.specifiers.data import Data
from effconv_core.distributed.process_group import Ranks
from effconv_core.engine.train import TrainConfig, evaluate
from effconv_core.io.console import PlainConsole
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

ALONE = Ranks(0, 1, None, "cpu")
SETTINGS = {"model": "own", "data": "noise", "device": "cpu"}
TRAIN = TrainConfig(epochs=1, batch_size=8, lr=0.01)


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 1),
        nn.Conv2d(4, 4, 3, padding=1),
        nn.Conv2d(4, 4, (1, 3), padding=(0, 1)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 2),
    )


def data(samples=24):
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(3, 8, 1, 6, 6, generator=generator)
    batches = [(batch, torch.arange(8) % 2) for batch in images]
    known = {
        "image_shape": (1, 6, 6),
        "num_classes": 2,
        "samples": samples,
        "note": "noise",
        "train": lambda batch_size: batches,
        "test": lambda: batches,
    }
    return Data(**known)


def of(kind, **changes):
    values = {"train": TRAIN, "device": "cpu"}
    if kind is SearchOptions:
        search = recipe("bank", epochs=1, least_steps=0, race_steps=0, finalists=1)
        values |= {"search": search, "batch_size": 8, "budget": 350.0}
    return kind(**values | changes)


def searched(folder, **changes):
    model = network()
    budget = float(sum(p.numel() for p in model.parameters()))
    options = of(SearchOptions, **{"budget": budget, **changes})
    console = PlainConsole(quiet=True)
    return search_and_train(folder, SETTINGS, options, model, data(), console=console, ranks=ALONE)


def test_a_search_leaves_plan_cnn_reports_and_result(tmp_path):
    result = searched(tmp_path / "run", baseline=True)
    assert json.loads((tmp_path / "run" / "result.json").read_text()) == json.loads(
        json.dumps(result)
    )
    assert set(result["networks"]) == {"learned", "original"}
    plan = SizePlan.load(tmp_path / "run" / "plan.json")
    cnn = load(network(), tmp_path / "run" / "cnn.safetensors")
    assert sum(p.numel() for p in cnn.parameters()) == result["parameters"] == plan.cost
    assert evaluate(cnn, data().test()) == result["accuracy"]
    written = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"config.json", "metrics.jsonl", "report.html", "report.md", "sizes.png"} <= written


def test_a_finished_run_is_not_begun_again_unasked(tmp_path):
    first = searched(tmp_path / "run")
    with pytest.raises(FileExistsError, match="run"):
        searched(tmp_path / "run")
    assert searched(tmp_path / "run", overwrite=True) == first


def test_batches_of_more_than_the_set_are_refused_before_a_folder_is_made(tmp_path):
    options = of(SearchOptions, train=dataclasses.replace(TRAIN, batch_size=25))
    with pytest.raises(ValueError, match=r"25.* 24 "):
        search_and_train(
            tmp_path / "run",
            SETTINGS,
            options,
            network(),
            data(),
            console=PlainConsole(quiet=True),
            ranks=ALONE,
        )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("sizes", [None, {"1": 5, "2": (2, 3)}])
def test_a_training_alone_is_of_a_plan_or_of_the_networks_own_sizes(sizes, tmp_path):
    plan = None if sizes is None else SizePlan(sizes)
    result = train_alone(
        tmp_path / "run",
        SETTINGS,
        of(RunOptions),
        network(),
        plan,
        data(),
        console=PlainConsole(quiet=True),
        ranks=ALONE,
    )
    assert result["sizes"] == ({"1": 3, "2": (1, 3)} if sizes is None else sizes)
    assert list(result["networks"]) == ["original" if sizes is None else "learned"]
    kept = SizePlan.load(tmp_path / "run" / "plan.json")
    assert kept.sizes == result["sizes"]
    assert kept.cost == result["parameters"]


def test_a_run_that_lost_its_metrics_after_its_training_goes_on_to_its_end(tmp_path):
    made, folder = data(), tmp_path / "run"
    options, held_out = of(RunOptions), dataclasses.replace(made, val=lambda _: made.test())
    results = []
    for _ in range(2):
        console = PlainConsole(quiet=True)
        results.append(
            train_alone(
                folder, SETTINGS, options, network(), None, held_out, console=console, ranks=ALONE
            )
        )
        for name in ("metrics.jsonl", "result.json", "report.html"):
            (folder / name).unlink(missing_ok=True)
    first, again = (result["networks"]["original"] for result in results)
    assert first["val_accuracy"] == first["test_accuracy"] == again["test_accuracy"]
    assert "val_accuracy" not in again


class Stops(list):
    """Stops the training in the validation after its second epoch, as Ctrl-C does."""

    times = 0

    def __iter__(self):
        self.times += 1
        if self.times == 2:
            raise KeyboardInterrupt
        return super().__iter__()


def test_a_training_whose_loader_has_a_generator_of_its_own_goes_on_to_the_same_result(tmp_path):
    (images, labels), *_ = data().train(8)
    samples = TensorDataset(images + labels.view(8, 1, 1, 1), labels)

    def trained(name, validation):
        own = torch.Generator().manual_seed(7)  # as a function makes it anew in each process
        loader = DataLoader(samples, 2, shuffle=True, generator=own)
        known = {"train": lambda _: loader, "val": lambda _: validation, "samples": 8}
        options = of(RunOptions, train=TrainConfig(epochs=3, batch_size=2, lr=0.1))
        made, console = dataclasses.replace(data(), **known), PlainConsole(quiet=True)
        train_alone(
            tmp_path / name, SETTINGS, options, network(), None, made, console=console, ranks=ALONE
        )
        return load(network(), tmp_path / name / "cnn.safetensors").state_dict()

    whole = trained("whole", [(images, labels)])
    with pytest.raises(KeyboardInterrupt):
        trained("stopped", Stops([(images, labels)]))
    resumed = trained("stopped", [(images, labels)])
    assert all(torch.equal(value, whole[name]) for name, value in resumed.items())


def test_the_sizes_of_layers_are_numbers_where_all_axes_are_equal():
    assert original_sizes(network(), ["1", "2"]) == {"1": 3, "2": (1, 3)}


def test_a_fresh_cnn_is_drawn_from_the_seed_alone():
    sizes, model = {"1": 5}, network()
    first, again = (fresh_cnn(model, sizes, of(RunOptions, seed=3))[1].weight for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, fresh_cnn(model, sizes, of(RunOptions, seed=4))[1].weight)
    assert torch.equal(model[0].weight, network()[0].weight)


@pytest.mark.parametrize(("conv", "last"), [(nn.Conv2d, True), (nn.Conv3d, False)])
def test_channels_are_last_where_they_can_be(conv, last):
    model = placed(nn.Sequential(conv(3, 4, 3)), of(RunOptions), ALONE)
    fits = model[0].weight.is_contiguous(memory_format=torch.channels_last) if last else False
    assert fits == last
    assert model[0].weight.is_contiguous() != last


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"device": "gpu"}, "'gpu'"),
        ({"sync_batchnorm": True}, "'cpu'"),
        ({"name": "../out"}, "out"),
        ({"name": str(Path("/a"))}, "a"),
    ],
)
def test_options_that_cannot_be_are_refused(changes, named):
    with pytest.raises(ValueError, match=named):
        check_options(of(RunOptions, **changes))
    check_options(of(RunOptions, name="a-run"))
