"""Metrics of a run, with TensorBoard and without."""

import sys

from effconv_core.runs.metrics import Metrics


def test_metrics_do_without_tensorboard(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    metrics = Metrics(tmp_path)
    metrics.log("train", 0, 1, loss=0.5)
    metrics.close()
    assert [row["loss"] for row in metrics.rows()] == [0.5]
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]
