"""Flash that a choice of kernels takes: each layer's own bytes, and every function once in the image.

Sizes come from code_sizes.json (footprint.py has its format); what the table does not hold counts as
nothing in C, and by its bound in assembly. Good enough to compare choices; footprint.py predicts images.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from edgekd.mcu.codegen_case import Emission
from edgekd.mcu.footprint import VECTORS_BYTES, compilers, leaf_size, load_table

LAYER_CODE_BYTES = 24  # of a layer's own function and its call

# A function of the image: the file that defines it ("" for assembly and helpers), and its name.
Part = tuple[str, str]


class Sizes:
    """The table's figures of one compiler."""

    def __init__(self, compiler: str) -> None:
        table = load_table()
        self._structs = table["structs"]
        self._sizes: Mapping[str, Any] = table["compilers"].get(compilers(table).get(compiler, ""), {})
        self._sources = self._sizes.get("sources", {})
        self._leaves: dict[str, int] = {}
        self._closures: dict[str, frozenset[Part]] = {}

    @property
    def image_bytes(self) -> int:
        """Start-up and harness: what an image takes whatever the model."""
        pieces = self._sizes.get("harness", {}).get("1x1", {})
        return VECTORS_BYTES + sum(int(piece["bytes"]) for piece in pieces.values())

    def own_bytes(self, emission: Emission) -> int:
        """Weights, tables, struct and function of one layer."""
        struct = int(self._structs.get(emission.struct[0], [0])[0]) if emission.struct else 0
        arrays = sum(array.values.nbytes for array in (*emission.weights, *emission.tables))
        return arrays + struct + LAYER_CODE_BYTES * len(emission.calls)

    def parts(self, emission: Emission) -> frozenset[Part]:
        """The functions that one layer needs."""
        found: set[Part] = set()
        for leaf in emission.assembly:
            if leaf.name not in self._leaves:
                self._leaves[leaf.name] = leaf_size(leaf.text, self._sizes)
            found.add(("", leaf.name))
        for kernel in {call.kernel for call in emission.calls} | set(emission.helpers):
            found |= self._closure(kernel)
        return frozenset(found)

    def code_bytes(self, parts: Iterable[Part]) -> int:
        return sum(self._part_bytes(part) for part in set(parts))

    def _closure(self, kernel: str) -> frozenset[Part]:
        """`kernel` in C and all that it calls."""
        if kernel not in self._closures:
            found: set[Part] = set()
            waiting = [(f"{kernel}.c", kernel)]
            while waiting:
                file, name = waiting.pop()
                owner = self._owner(file, name)
                if owner is None or (owner, name) in found:
                    continue
                found.add((owner, name))
                waiting += [(owner, use) for use in self._piece(owner, name)["uses"]]
            self._closures[kernel] = frozenset(found)
        return self._closures[kernel]

    def _owner(self, file: str, name: str) -> str | None:
        """The file that defines `name`, as code of `file` sees it: its own first."""
        files = (file, *(other for other in self._sources if other != file))
        owners = (f for f in files if name in self._sources.get(f, {"pieces": {}})["pieces"])
        return next(owners, "" if name in self._sizes.get("helpers", {}) else None)

    def _piece(self, file: str, name: str) -> Mapping[str, Any]:
        pieces = self._sources[file]["pieces"] if file else self._sizes["helpers"]
        found: Mapping[str, Any] = pieces[name]
        return found

    def _part_bytes(self, part: Part) -> int:
        file, name = part
        if not file and name in self._leaves:
            return self._leaves[name]
        return int(self._piece(file, name)["bytes"])


@cache
def sizes_of(compiler: str) -> Sizes:
    """The figures of "clang" or "gcc"."""
    return Sizes(compiler)
