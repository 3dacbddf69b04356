"""A training's log: lines of CSV, and events read back from TensorBoard's file as it defines them."""

from __future__ import annotations

import csv
import math
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from edgekd.errors import ConfigError, MissingDependencyError
from edgekd.learn.logs import COLUMNS, epoch_log
from edgekd.learn.training import Schedule, Watch, train

SCHEDULE = Schedule(4, 3, 2, 0.1, 0.0, 1, "little", "sgd")


def trained(log: Path, labels: bool = True) -> float:
    """Three epochs of a linear layer; the last one's mean loss."""
    net, x, y = torch.nn.Linear(2, 2), torch.eye(2).repeat(2, 1), torch.tensor([0, 1, 0, 1])
    torch.nn.init.zeros_(net.weight), torch.nn.init.zeros_(net.bias)
    loss = torch.nn.functional.cross_entropy
    return train(
        net,
        lambda epoch, rows: (x[rows], (y[rows],) if labels else (y[rows][:, None],)),
        lambda output, targets: loss(output, targets[0].flatten()),
        SCHEDULE,
        Watch(log=log),
    )


def records(path: Path) -> Iterator[bytes]:
    """The payloads of a TFRecord file: length, its checksum, payload, its checksum."""
    from tensorboardX.crc32c import crc32c

    def masked(data: bytes) -> int:
        value = crc32c(data)
        return ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF

    raw, at = path.read_bytes(), 0
    while at < len(raw):
        (length,) = struct.unpack_from("<Q", raw, at)
        payload = raw[at + 12 : at + 12 + length]
        assert struct.unpack_from("<I", raw, at + 8) == (masked(raw[at : at + 8]),)
        assert struct.unpack_from("<I", raw, at + 12 + length) == (masked(payload),)
        yield payload
        at += 16 + length


def scalars(folder: Path) -> dict[str, dict[int, float]]:
    """Name -> epoch -> value of the one run in `folder`."""
    from tensorboardX.proto.event_pb2 import Event

    (file,) = folder.glob("events.out.tfevents.*")
    found: dict[str, dict[int, float]] = {}
    for payload in records(file):
        event = Event.FromString(payload)
        for value in event.summary.value:
            found.setdefault(value.tag, {})[event.step] = value.simple_value
    return found


@pytest.mark.needs("tensorboardX")
def test_events_say_what_the_csv_says(tmp_path: Path) -> None:
    last = trained(tmp_path / "events")
    assert trained(tmp_path / "log.csv") == last
    found = scalars(tmp_path / "events" / "little")
    with (tmp_path / "log.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert tuple(rows[0]) == COLUMNS and sorted(found) == ["accuracy_train", "loss", "seconds"]
    assert [row["epoch"] for row in rows] == ["1", "2", "3"] and sorted(found["loss"]) == [1, 2, 3]
    assert found["loss"][3] == pytest.approx(last, rel=1e-6)
    for row in rows:
        for name in ("loss", "accuracy_train"):
            assert found[name][int(row["epoch"])] == pytest.approx(float(row[name]), rel=1e-4)


@pytest.mark.needs("tensorboardX")
def test_what_has_no_accuracy_says_none(tmp_path: Path) -> None:
    trained(tmp_path / "events", labels=False)
    assert sorted(scalars(tmp_path / "events" / "little")) == ["loss", "seconds"]


def test_without_the_library_the_line_that_installs_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'edgekd\[tensorboard\]'"):
        trained(tmp_path / "events")
    assert not (tmp_path / "events").exists()
    assert math.isfinite(trained(tmp_path / "log.csv"))


@pytest.mark.parametrize("name", ["log.csv", pytest.param("log", marks=pytest.mark.needs("tensorboardX"))])
def test_a_log_that_cannot_be_written_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(ConfigError, match=f"the log .*file/{name}.* cannot be written"):
        trained(tmp_path / "file" / name)


def test_no_log_is_no_file(tmp_path: Path) -> None:
    with epoch_log(None, "little", 3) as told:
        told(1, 0.5, math.nan, 0.1)
    assert not list(tmp_path.iterdir())
