"""The space of a recipe's [search]: dimensions with their choices, and the student that a point is."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgekd.learn.blocks import block_layers
from edgekd.learn.structure import MODELS, Structure
from edgekd.recipe import StudentParams
from edgekd.recipe.blocks import BlockParams
from edgekd.recipe.search import SearchParams

Choice = int | str
Point = Mapping[str, Choice]  # dimension -> choice

_NO_LIMIT = 1 << 50
_EXPANDED = ("bottleneck", "inverted", "fused")  # the kinds that read `expansion`


@dataclass(frozen=True)
class Candidate:
    """A student of the space. bits: of each stage's weights; the stem and the classifier have 8."""

    blocks: tuple[BlockParams, ...]
    bits: tuple[int, ...]

    @property
    def name(self) -> str:
        """The same for the same student, whatever point it came from."""
        table = [[dataclasses.astuple(block) for block in self.blocks], list(self.bits)]
        return json.dumps(table, separators=(",", ":"))

    @property
    def student(self) -> StudentParams:
        return StudentParams(
            model="blocks", blocks=self.blocks, max_weight_bytes=_NO_LIMIT, max_macs=_NO_LIMIT
        )

    def structure(self, input_shape: Sequence[int], classes: int) -> Structure:
        return MODELS["blocks"](self.student, input_shape, classes)

    def layer_bits(self, channels: int) -> dict[int, int]:
        """Layer's place -> bits of its weights, where they are fewer than 8."""
        found, at = {}, 0
        for layers, bits in zip(block_layers(self.blocks, channels), self.bits, strict=True):
            for index, layer in enumerate(layers, at):
                if bits < 8 and layer.weights:
                    found[index] = bits
            at += len(layers)
        return found


def candidate_of(name: str) -> Candidate:
    """The candidate of that `name`."""
    rows, bits = json.loads(name)
    return Candidate(tuple(BlockParams(*row) for row in rows), tuple(bits))


class Space:
    """dimensions: name -> choices, numbers ascending; of one choice too."""

    def __init__(self, params: SearchParams) -> None:
        self._stages = max(params.depths)
        whole = {
            "shrink": params.shrinks,
            "stem": params.stem_channels,
            "stem_stride": params.stem_strides,
            "depth": params.depths,
        }
        stage: dict[str, tuple[Choice, ...]] = {
            "kind": params.kinds,
            "channels": params.channels,
            "stride": params.strides,
            "kernel": params.kernels,
            "expansion": params.expansions,
            "repeat": params.repeats,
            "bits": params.bits,
        }
        self.dimensions: dict[str, tuple[Choice, ...]] = {k: tuple(sorted(v)) for k, v in whole.items()}
        for number in range(1, self._stages + 1):
            for name, choices in stage.items():
                ordered = tuple(dict.fromkeys(choices)) if name == "kind" else tuple(sorted(choices))
                self.dimensions[f"{name}{number}"] = ordered

    @property
    def size(self) -> int:
        """How many points there are; several may be one student."""
        count = 1
        for choices in self.dimensions.values():
            count *= len(choices)
        return count

    def candidate(self, point: Point) -> Candidate:
        """The student of a point; what its kinds of block do not read is left at its default."""

        def number(name: str) -> int:
            value = point[name]
            assert isinstance(value, int)
            return value

        front = [BlockParams("shrink", stride=number("shrink"))] if number("shrink") > 1 else []
        blocks = [*front, BlockParams("conv", number("stem"), number("stem_stride"))]
        bits = [8] * len(blocks)
        for stage in range(1, number("depth") + 1):
            kind, channels = str(point[f"kind{stage}"]), number(f"channels{stage}")
            expansion = number(f"expansion{stage}") if kind in _EXPANDED else 1
            if kind == "bottleneck":
                channels = -(-channels // expansion) * expansion
            blocks.append(
                BlockParams(
                    kind,
                    channels,
                    number(f"stride{stage}"),
                    number(f"kernel{stage}"),
                    expansion,
                    number(f"repeat{stage}"),
                )
            )
            bits.append(number(f"bits{stage}"))
        return Candidate(tuple(blocks), tuple(bits))
