"""Work: how many instructions of each class run, and what they cost on a core.

What a piece of code runs is counted once, by class; a profile's cost model turns it into modelled cycles.
The rules are those of cycles.py, which counts on the emulated core; here they are applied to the text of
generated assembly and to sums, so that a layer's cost is known before anything is compiled.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from edgekd.target import CostModel

# The classes of CostModel, registers moved by LDM and STM, and instructions of any class.
CLASSES = (*CostModel.__dataclass_fields__, "register", "instructions")

_CONDITIONS = ("eq", "ne", "hs", "lo", "mi", "pl", "vs", "vc", "hi", "ls", "ge", "lt", "gt", "le")
_PLAIN_BRANCHES = ("b", "bl", "bx", "blx")
# The beginnings of their names: "smla" is that of smlad, smlabb and smlawt too.
_MULTIPLIES = (
    *("mul", "mla", "mls", "smul", "smla", "smls", "smmul", "smmla", "smmls", "smuad", "smusd"),
    *("umul", "umla", "umaal"),
)


@dataclass(frozen=True)
class Work:
    """counts: class -> how often; may be fractions, and negative in differences."""

    counts: Mapping[str, float] = field(default_factory=dict)

    def __add__(self, other: Work) -> Work:
        keys = {**self.counts, **other.counts}
        return Work({key: self.counts.get(key, 0) + other.counts.get(key, 0) for key in keys})

    def __mul__(self, times: float) -> Work:
        return Work({key: value * times for key, value in self.counts.items()})

    @property
    def instructions(self) -> float:
        return self.counts.get("instructions", 0)

    def cycles(self, cost: CostModel) -> float:
        """Modelled cycles on a core of these costs."""
        prices: dict[str, int] = asdict(cost) | {"register": 1, "instructions": 0}
        return sum(value * prices[key] for key, value in self.counts.items())


NOTHING = Work()


def work_of_lines(lines: list[str]) -> Work:
    """Straight code, each instruction once; a conditional branch counts as not taken."""
    counts = dict.fromkeys(CLASSES, 0)
    after_load = False
    for line in lines:
        if line.startswith("."):
            continue
        for kind, times in _classes(line, after_load).items():
            counts[kind] += times
        counts["instructions"] += 1
        after_load = _is_load(line)
    return Work({key: value for key, value in counts.items() if value})


def _name(line: str) -> str:
    return line.split()[0].removesuffix(".w").removesuffix(".n")


def is_conditional_branch(line: str) -> bool:
    name = _name(line)
    return name in ("cbz", "cbnz") or (name[:1] == "b" and name[1:] in _CONDITIONS)


def _is_load(line: str) -> bool:
    return _name(line).startswith("ldr") and not _name(line).startswith("ldrd")


def _classes(line: str, after_load: bool) -> dict[str, int]:
    """The classes of one instruction."""
    name = _name(line)
    if is_conditional_branch(line):
        return {"branch_not_taken": 1}
    if name in _PLAIN_BRANCHES:
        return {"branch_taken": 1}
    own = _data_classes(line, name, after_load)
    writes_pc = re.search(r"\bpc\}", line) or re.match(r"\S+\s+pc\b", line)
    return own | {"branch_taken": 1, "alu": own.get("alu", 0) - 1} if writes_pc else own


def _data_classes(line: str, name: str, after_load: bool) -> dict[str, int]:
    if name.startswith(("ldm", "stm", "push", "pop")):
        return {"multiple": 1, "register": registers(line)}
    if name.startswith(("ldrd", "strd")):
        return {"pair": 1}
    if name.startswith("ldr"):
        return {"load_next" if after_load else "load": 1}
    if name.startswith("str"):
        return {"store": 1}
    if name.startswith(("sdiv", "udiv")):
        return {"divide": 1}
    return {"multiply" if name.startswith(_MULTIPLIES) else "alu": 1}


def registers(line: str) -> int:
    """Registers in a list such as {r4-r11, lr}."""
    count = 0
    for part in line.split("{")[1].split("}")[0].split(","):
        ends = [int(number) for number in re.findall(r"\d+", part)]
        count += ends[1] - ends[0] + 1 if len(ends) == 2 else 1
    return count
