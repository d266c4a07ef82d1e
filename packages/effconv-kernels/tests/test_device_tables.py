"""Tables on a device, and what a GPU's streams ask of them."""

import pytest
import torch
from effconv_kernels import device_tables


class Stream:
    def __init__(self):
        self.waited = []

    def wait_event(self, event):
        self.waited.append(event)


class Values:
    """Stands in for a tensor on a GPU."""

    device = torch.device("cuda", 0)

    def __init__(self):
        self.recorded = []

    def record_stream(self, stream):
        self.recorded.append(stream)

    def data_ptr(self):
        return id(self)


@pytest.mark.parametrize("capturing", [False, True])
def test_a_table_is_waited_for_on_another_stream_and_kept_for_a_graph(capturing, monkeypatch):
    copying, other, values = Stream(), Stream(), Values()
    table = device_tables.Table(values, copying, "copied")
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: capturing)
    monkeypatch.setattr(device_tables, "_captured", {})
    for stream in (copying, other):
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device, stream=stream: stream)
        assert device_tables.ready(table) is values
    assert copying.waited == []
    # A capture cannot wait for what was begun before it, and begins with a synchronisation.
    assert other.waited == ([] if capturing else ["copied"])
    assert values.recorded == ([] if capturing else [other])
    assert list(device_tables._captured.values()) == ([values] if capturing else [])


def test_a_table_that_is_new_in_a_capture_is_refused_with_the_remedy(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    with pytest.raises(RuntimeError, match="sizes"):
        device_tables.on_device([1, 2], torch.device("cuda", 0))
