"""Made-up results of a reproduction's runs."""

import json

from tools.reproduce.run import made_with


def measured(row, seed=0, scale="cpu", **changes):
    """Give a result with all that a table shows."""
    made = json.loads(json.dumps(made_with(row, seed, scale)))
    times = ("search_epoch", "train_epoch", "epoch")
    environment = {"device": "cpu", "commit": "c0", "torch": "2", "data": row.data}
    return {
        **made,
        "sizes": {"a": 3, "b": 5},
        "parameters": round(row.budget),
        "accuracy": 0.5,
        **{f"seconds_per_{name}": 2.0 for name in times},
        "seconds_since_last_start": 10.0,
        "peak_memory_mib": 100,
        "environment": {**environment, **changes.pop("environment", {})},
        **changes,
    }


def compared(sizes, accuracy, seed):
    """Give a result of learned sizes (`found`) or others, with what the two are compared by."""
    row = {"data": "cifar10", "model": "cifar_resnet20", "budget": 0.66e6, "sizes": sizes}
    learned = sizes == "found"
    return {
        "row": row,
        "seed": seed,
        "accuracy": accuracy,
        "seconds_per_epoch": 1.0 + seed,
        "sizes": {"a": 3, "b": 4 if seed else 3},
        "parameters": 660_000 if learned else 600_000,
    }
