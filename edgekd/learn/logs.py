"""What a training tells a file at each epoch: a line of CSV, or events for TensorBoard.

tensorboardX writes the events: 0.7 MB, and all that it needs is here anyhow (numpy, packaging, protobuf).
TensorBoard itself, which shows them, is not needed here.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgekd.errors import ConfigError, MissingDependencyError

COLUMNS = ("purpose", "epoch", "epochs", "loss", "accuracy_train", "seconds")
# (epochs behind it, the last one's mean loss, its accuracy (NaN: none), its seconds)
Told = Callable[[int, float, float, float], None]


@contextmanager
def epoch_log(place: Path | None, purpose: str, epochs: int) -> Iterator[Told]:
    """What to call after each epoch of a run.

    place: a .csv file, appended to; a folder, where TensorBoard finds a run named `purpose`; None: nothing is
    written. Raises MissingDependencyError where tensorboardX is wanted and absent, ConfigError where `place`
    cannot be written.
    """
    if place is None:
        yield lambda epoch, loss, accuracy, seconds: None
    elif place.suffix == ".csv":
        yield lambda *row: _append(place, (purpose, row[0], epochs), row[1:])
    else:
        writer = _writer(place / purpose)
        try:
            yield lambda epoch, loss, accuracy, seconds: _events(writer, epoch, loss, accuracy, seconds)
        finally:
            writer.close()


def _append(file: Path, start: tuple[str | int, ...], figures: tuple[float, ...]) -> None:
    new = not file.exists()
    try:
        with file.open("a", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream)
            if new:
                writer.writerow(COLUMNS)
            loss, accuracy, seconds = figures
            writer.writerow((*start, f"{loss:.6g}", f"{accuracy:.5g}", f"{seconds:.2f}"))
    except OSError as error:
        raise _unwritable(file, error) from None


def _writer(folder: Path) -> Any:
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        raise MissingDependencyError(
            "events for TensorBoard need tensorboardX; install it with: pip install 'edgekd[tensorboard]', "
            "or give --log a .csv file"
        ) from None
    try:
        return SummaryWriter(str(folder))
    except OSError as error:
        raise _unwritable(folder, error) from None


def _events(writer: Any, epoch: int, loss: float, accuracy: float, seconds: float) -> None:
    for name, value in (("loss", loss), ("accuracy_train", accuracy), ("seconds", seconds)):
        if not math.isnan(value):
            writer.add_scalar(name, value, epoch)
    writer.flush()


def _unwritable(place: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"the log {place} cannot be written: {error.strerror or error}; "
        "give --log a .csv file or a folder elsewhere"
    )
