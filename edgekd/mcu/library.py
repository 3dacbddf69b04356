"""What a caller may ask of the generated library's interface: names, labels, self-test, updates."""

from __future__ import annotations

import re
from dataclasses import dataclass

from edgekd.errors import ConfigError

MOST_VECTORS = 16
_PREFIX = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")


@dataclass(frozen=True)
class Library:
    """The library beside the network itself; a frozen part of Options.

    prefix: what files and global symbols begin with ("model": model.h, model_init, MODEL_ARENA_BYTES), so
        that several models fit into one image; lower-case words joined by "_".
    is_updatable: no code depends on a learned value, so that the weights can be replaced apart from it.
    labels: names of the output's classes, in order; empty: none are known.
    selftest_vectors: how many golden vectors `model_selftest` runs, 0 to 16; 0: there is none.
    Raises ConfigError for a prefix that is no C identifier of that form, or a count out of range.
    """

    prefix: str = "model"
    is_updatable: bool = False
    labels: tuple[str, ...] = ()
    selftest_vectors: int = 0

    def __post_init__(self) -> None:
        if not _PREFIX.fullmatch(self.prefix) or f"{self.prefix}_".startswith("k_"):
            raise ConfigError(
                f"prefix is {self.prefix!r}; it must be lower-case words of letters and digits joined by "
                "'_', and not begin with k_, as in kws or wake_word"
            )
        if not 0 <= self.selftest_vectors <= MOST_VECTORS:
            raise ConfigError(
                f"selftest_vectors is {self.selftest_vectors}; it must be from 0 to {MOST_VECTORS}"
            )
