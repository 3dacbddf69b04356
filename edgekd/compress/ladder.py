"""Which combinations of methods to try, the mildest first, and how strong each has to be to fit.

A combination is a list of methods, each at one strength; strengths are shares of the multiply-accumulates
that are left, from 0.95 down. Milder: fewer methods, then more multiply-accumulates left, then more bytes.
What a combination costs is asked before anything is tuned.
"""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from edgekd.compress.lowrank import lowrank
from edgekd.compress.prune import prune
from edgekd.compress.share import plans
from edgekd.errors import BudgetError, ConfigError
from edgekd.learn.structure import Structure
from edgekd.learn.student import StudentNet
from edgekd.recipe import CompressParams

COMBINATIONS: tuple[tuple[str, ...], ...] = (
    (),
    ("share",),
    ("prune",),
    ("lowrank",),
    ("prune", "share"),
    ("lowrank", "share"),
    ("prune", "lowrank"),
    ("prune", "lowrank", "share"),
)
STRENGTHS = tuple(
    share / 100 for share in range(95, 20, -5)
)  # of the multiply-accumulates, left by each method
ENTRIES = 16  # of a shared table

# What a structure costs with so many bits for the weights of single layers (8 where none are named).
Price = Callable[[Structure, Mapping[int, int]], Mapping[str, float]]


@dataclass(frozen=True)
class Rung:
    """A combination at one strength, and what it is predicted to cost.

    strength: None where no method of it has one. missing: quantity -> how much too much it takes; empty where
    it fits.
    """

    params: CompressParams
    strength: float | None
    macs: int
    weight_bytes: int
    costs: Mapping[str, float]
    missing: Mapping[str, float]

    @property
    def fits(self) -> bool:
        return not self.missing

    @property
    def excess(self) -> float:
        """The worst share that it is over a limit, 0 where it fits."""
        return max((over / (self.costs[name] - over) for name, over in self.missing.items()), default=0.0)


def rungs(net: StudentNet, params: CompressParams, price: Price, limits: Mapping[str, float]) -> list[Rung]:
    """Each combination at the mildest strength that fits `limits` (at its strongest where none does).

    params: how each is tuned; its methods and strengths are not read. Those that fit come first, the mildest
    in front; the others behind, the nearest in front. Combinations that cannot be made of this student are
    left out.
    """
    found = []
    for methods in COMBINATIONS:
        graded = bool(set(methods) & {"prune", "lowrank"})
        rung = _mildest(
            lambda strength, methods=methods: _rung(  # type: ignore[misc]
                net, _params(params, methods, strength), strength, price, limits
            ),
            STRENGTHS if graded else (None,),
        )
        if rung is not None:
            found.append(rung)
    return sorted(found, key=_order)


def _mildest(at: Callable[[float | None], Rung | None], strengths: Sequence[float | None]) -> Rung | None:
    """The first that fits, found by halving: stronger is cheaper; the strongest that can be where none fits.

    Beyond some strength there may be none at all (no ranks are left to take), which is found by halving, too.
    """
    rungs = {0: at(strengths[0])}
    if rungs[0] is None:
        return None

    def rung(index: int) -> Rung | None:
        if index not in rungs:
            rungs[index] = at(strengths[index])
        return rungs[index]

    def ends(index: int) -> bool:
        found = rung(index)
        return found is None or found.fits

    first = bisect.bisect_left(range(len(strengths)), True, key=ends)
    fitting = rung(first) if first < len(strengths) else None
    return fitting or rung(first - 1)


def _order(rung: Rung) -> tuple[float, ...]:
    return (rung.excess, len(rung.params.methods), -rung.macs, -rung.weight_bytes)


def _params(params: CompressParams, methods: tuple[str, ...], strength: float | None) -> CompressParams:
    """The recipe's tuning with the methods and strengths of one rung."""
    chosen = dataclasses.replace(
        CompressParams(),
        methods=methods,
        epochs=params.epochs,
        learning_rate=params.learning_rate,
        batch_norm=params.batch_norm,
        tuning=tuple(row for row in params.tuning if row.method in methods),
    )
    if "prune" in methods and strength is not None:
        chosen = dataclasses.replace(chosen, keep=strength, prune_floor=params.prune_floor)
    if "lowrank" in methods and strength is not None:
        chosen = dataclasses.replace(chosen, lowrank_layers="all", rank_by="macs", rank_share=strength)
    if "share" in methods:
        chosen = dataclasses.replace(chosen, entries=ENTRIES, group_channels=params.group_channels)
    return chosen


def _rung(
    net: StudentNet, params: CompressParams, strength: float | None, price: Price, limits: Mapping[str, float]
) -> Rung | None:
    """One rung priced; None where this student cannot be compressed so."""
    methods, bits = params.methods, dict[int, int]()
    try:
        small = prune(net, params) if "prune" in methods else net
        small = lowrank(small, params) if "lowrank" in methods else small
        if "share" in methods:
            bits = {int(name.split(".")[1]): 4 for name in plans(small, params)}
    except (BudgetError, ConfigError):
        return None
    structure = small.structure
    costs = price(structure, bits)
    missing = {name: costs[name] - most for name, most in limits.items() if costs[name] > most}
    saved = sum(structure.layers[index].weights // 2 for index in bits)
    return Rung(params, strength, structure.macs, structure.weight_bytes - saved, costs, missing)
