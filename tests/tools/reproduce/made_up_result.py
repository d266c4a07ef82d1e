"""A made-up result of a reproduction's run, with all that a table shows."""

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
