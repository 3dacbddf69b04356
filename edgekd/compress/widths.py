"""How many channels each layer keeps: along one path of mild steps to a cost, or as the recipe says.

Channels go in steps down to multiples of four. Each step is the one, of all groups, that loses the least
importance for the multiply-accumulates that it saves; where the path ends is decided by any cost of a
structure: multiply-accumulates, bytes, or what a device is predicted to spend.
"""

from __future__ import annotations

import bisect
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from edgekd.compress.ranks import STEP
from edgekd.declaration import suggest
from edgekd.errors import BudgetError, ConfigError, UnsupportedOpError
from edgekd.learn.structure import INPUT, LayerSpec, Structure
from edgekd.recipe import CompressParams
from edgekd.recipe.limits import LayerChannels

# What a structure costs on a device, by LIMITED's names; what cannot be told is left out.
DeviceCosts = Callable[[Structure], Mapping[str, float]]


@dataclass(frozen=True)
class Group:
    """Channels that go together. layers: whose outputs they are; order: the least important first."""

    layers: tuple[int, ...]
    order: tuple[int, ...]
    importance: tuple[float, ...]  # in that order

    def kept_next(self, kept: int, floor: float) -> int | None:
        """How many are left after the next step down to a multiple of four, or None at the floor."""
        least = max(STEP, _up(math.ceil(len(self.order) * floor)))
        lower = (kept - 1) // STEP * STEP
        return lower if lower >= least else None


@dataclass(frozen=True)
class Limit:
    """What a structure may cost.

    share: the cost as a share of what is allowed, 1 or less where it is met. said: the sentence's beginning,
    with the cost at the end of the path, where it is not.
    """

    share: Callable[[Structure], float]
    said: Callable[[Structure], str]


def limit_of(structure: Structure, params: CompressParams, cost: Callable[[Structure], float]) -> Limit:
    """At most `params.keep` times what `structure` costs."""
    whole, keep = cost(structure), params.keep
    return Limit(
        lambda narrow: cost(narrow) / whole / keep,
        lambda narrow: (
            f"compress.keep asks for {keep:g} of the cost, and {_rest(params)} still costs "
            f"{cost(narrow) / whole:.3f}"
        ),
    )


def device_limit(structure: Structure, params: CompressParams, costs: DeviceCosts) -> Limit:
    """Every limit of `params.prune_to`. Raises UnsupportedOpError for a quantity that cannot be predicted."""
    asked = params.prune_to
    assert asked is not None
    before = costs(structure)
    allowed = {name: most * (before.get(name, 0) if most <= 1 else 1) for name, most in asked.asked.items()}
    if unknown := [name for name in allowed if name not in before]:
        raise UnsupportedOpError(
            f"compress.prune_to.{unknown[0]}: it cannot be predicted for this student on {asked.target}; "
            "limit something else"
        )

    def shares(narrow: Structure) -> dict[str, float]:
        found = costs(narrow)
        return {name: found[name] / most for name, most in allowed.items()}

    def said(narrow: Structure) -> str:
        name = max(shares(narrow).items(), key=lambda each: each[1])[0]
        found = costs(narrow)[name]
        return (
            f"compress.prune_to asks for {allowed[name]:,.0f} {name} on {asked.target}, and {_rest(params)} "
            f"still takes {found:,.0f}: {found - allowed[name]:,.0f} too many"
        )

    return Limit(lambda narrow: max(shares(narrow).values()), said)


def _rest(params: CompressParams) -> str:
    part = "a quarter" if params.prune_floor == 0.25 else f"{params.prune_floor:g}"
    return f"{part} of each layer's channels, in multiples of four,"


def choose(structure: Structure, groups: Sequence[Group], limit: Limit, floor: float) -> list[int]:
    """How many channels of each group stay: as many steps of the path as the limit takes.

    Each step costs less than the one before, so the last of them is found by halving: a device's cost takes a
    while to tell. floor: the least share of a group's channels. Raises BudgetError where the path's end still
    costs too much.
    """

    def at(steps: int) -> Structure:
        return narrowed(structure, outputs_of(structure, groups, path[steps]))

    path = _path(structure, groups, floor)
    most = 1 + 1e-9  # a share that was computed from whole channels is met
    if limit.share(at(-1)) > most:
        raise BudgetError(f"{limit.said(at(-1))}; ask for more, or take a smaller student")
    return path[bisect.bisect_left(range(len(path)), True, key=lambda steps: limit.share(at(steps)) <= most)]


def given(structure: Structure, groups: Sequence[Group], asked: Sequence[LayerChannels]) -> list[int]:
    """The recipe's own widths; groups that it does not name stay whole. Raises ConfigError."""
    place = {f"layers.{layer}": group for group, each in enumerate(groups) for layer in each.layers}
    kept: dict[int, LayerChannels] = {}
    for row in asked:
        if row.layer not in place:
            raise ConfigError(
                f"compress.prune_channels: {row.layer} has no channels that can go{suggest(row.layer, place)}"
            )
        whole = len(groups[place[row.layer]].order)
        if row.channels > whole or (row.channels % STEP and row.channels != whole):
            raise ConfigError(
                f"compress.prune_channels: {row.channels} channels for {row.layer}, which has {whole}; "
                f"take a multiple of {STEP} below that"
            )
        other = kept.setdefault(place[row.layer], row)
        if other.channels != row.channels:
            raise ConfigError(
                f"compress.prune_channels: {other.layer} and {row.layer} are tied, and so are their widths; "
                f"give one of them, or both {other.channels}"
            )
    return [kept[n].channels if n in kept else len(group.order) for n, group in enumerate(groups)]


def listed(groups: Sequence[Group], kept: Sequence[int]) -> list[dict[str, str | int]]:
    """Widths as a recipe's prune_channels has them: each group by its first layer."""
    return [
        {"layer": f"layers.{group.layers[0]}", "channels": count}
        for group, count in zip(groups, kept, strict=True)
    ]


def narrowed(structure: Structure, outputs: Sequence[int]) -> Structure:
    """The structure with outputs[i] channels behind convolution or dense layer i; all others follow."""
    layers: list[LayerSpec] = []
    for index, spec in enumerate(structure.layers):
        source = structure.source(index)
        taken = structure.input_shape[0] if source == INPUT else layers[source].outputs
        left = outputs[index] if spec.weights else taken
        groups = taken if spec.groups > 1 else 1
        layers.append(dataclasses.replace(spec, inputs=taken, outputs=left, groups=groups))
    return Structure(structure.input_shape, tuple(layers))


def outputs_of(structure: Structure, groups: Sequence[Group], kept: Sequence[int]) -> list[int]:
    """Output channels of every layer where group n keeps kept[n]."""
    outputs = [spec.outputs for spec in structure.layers]
    for group, count in zip(groups, kept, strict=True):
        for layer in group.layers:
            outputs[layer] = count
    return outputs


def _path(structure: Structure, groups: Sequence[Group], floor: float) -> list[list[int]]:
    """The groups' channels from all of them down to the floor: each time the step of four of least loss for
    the multiply-accumulates that it saves.

    loss: importance of what goes over that of what was left in its group (as LAMP has it: Lee et al. 2021,
    arXiv 2010.07611), so that the last channels of a group are dearer than its first.
    """
    path = [[len(group.order) for group in groups]]
    while steps := list(_steps(structure, groups, path[-1], floor)):
        _, index, after = min(steps)
        path.append([*path[-1][:index], after, *path[-1][index + 1 :]])
    return path


def _steps(
    structure: Structure, groups: Sequence[Group], kept: list[int], floor: float
) -> Iterator[tuple[float, int, int]]:
    """(loss for a multiply-accumulate saved, group, its channels afterwards) of each step that there is."""
    now = narrowed(structure, outputs_of(structure, groups, kept)).macs
    for index, group in enumerate(groups):
        after = group.kept_next(kept[index], floor)
        if after is not None:
            trial = [*kept[:index], after, *kept[index + 1 :]]
            saved = now - narrowed(structure, outputs_of(structure, groups, trial)).macs
            whole = len(group.order)
            left = max(sum(group.importance[whole - kept[index] :]), 1e-30)
            lost = sum(group.importance[whole - kept[index] : whole - after]) / left
            yield lost / saved, index, after


def _up(count: int) -> int:
    return -(-count // STEP) * STEP
