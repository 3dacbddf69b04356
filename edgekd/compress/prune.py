"""Structured pruning: whole channels go, so that the network becomes narrower and nothing else.

Channels that an addition or a depthwise convolution joins can only go together. Which those are is found by
Torch-Pruning's dependency graph (Fang et al. 2023, arXiv 2301.12900), which traces the network; so is how
much a channel matters: the sum of squares of all weights that would go with it (with batch norm folded into
them), as a share of its group's. How many channels each layer keeps is decided here, in multiples of four,
and the result is checked against it.
"""

from __future__ import annotations

import bisect
import copy
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from edgekd.compress.ranks import STEP
from edgekd.errors import BudgetError, MissingDependencyError, UnsupportedOpError
from edgekd.learn.structure import INPUT, LayerSpec, Structure
from edgekd.learn.student import PaddedConv, StudentNet
from edgekd.recipe import CompressParams

LEAST = 4  # a layer keeps a LEAST-th of its channels at least: a network does not survive a layer of four


@dataclass(frozen=True)
class _Group:
    """Channels that go together. layers: whose outputs they are; order: the least important first."""

    layers: tuple[int, ...]
    order: tuple[int, ...]
    importance: tuple[float, ...]  # in that order

    def kept_next(self, kept: int) -> int | None:
        """How many are left after the next step down to a multiple of four, or None at the floor."""
        count = len(self.order)
        floor = max(STEP, _up(-(-count // LEAST)))
        lower = (kept - 1) // STEP * STEP
        return lower if lower >= floor else None


def plain_cost(unit: str) -> Callable[[Structure], float]:
    """The cost of a structure that needs no device."""
    return lambda structure: float(getattr(structure, unit))


def prune(
    net: StudentNet, params: CompressParams, cost: Callable[[Structure], float] | None = None
) -> StudentNet:
    """A narrower folded student, untuned, of at most `params.keep` times the cost.

    cost: of a structure, in any unit, less for fewer channels; it is asked a few times. None: the
    multiply-accumulates or the bytes of weights, as `params.prune_cost` says. Raises BudgetError where a
    quarter of each layer still costs more, UnsupportedOpError for a layer that the graph cannot follow.
    """
    _check_followable(net.structure)
    narrow = copy.deepcopy(net)
    graph = _dependencies(narrow)
    groups = _groups(graph, narrow)
    kept = _widths(net.structure, groups, params.keep, cost or plain_cost(params.prune_cost))
    for group, count in zip(groups, kept, strict=True):
        _remove(graph, _module(narrow.layers[group.layers[0]]), group.order[: len(group.order) - count])
    outputs = _outputs(net.structure, groups, kept)
    result = StudentNet(narrowed(net.structure, outputs), normalised=False)
    try:
        result.load_state_dict(narrow.state_dict())
    except RuntimeError as error:
        detail = str(error).splitlines()[-1].strip()
        raise UnsupportedOpError(
            f"pruning left layers that do not fit each other ({detail}); leave prune out of compress.methods"
        ) from None
    return result.eval()


def narrowed(structure: Structure, outputs: Sequence[int]) -> Structure:
    """The structure with outputs[i] channels behind convolution or dense layer i; all others follow."""
    layers: list[LayerSpec] = []
    for index, spec in enumerate(structure.layers):
        source = structure.source(index)
        taken = structure.input_shape[0] if source == INPUT else layers[source].outputs
        given = outputs[index] if spec.weights else taken
        groups = taken if spec.groups > 1 else 1
        layers.append(dataclasses.replace(spec, inputs=taken, outputs=given, groups=groups))
    return Structure(structure.input_shape, tuple(layers))


def _check_followable(structure: Structure) -> None:
    for index, spec in enumerate(structure.layers):
        if spec.groups not in (1, spec.inputs) or (spec.groups > 1 and spec.outputs != spec.inputs):
            raise UnsupportedOpError(
                f"layers.{index}: pruning cannot follow a convolution of {spec.inputs} to {spec.outputs} "
                f"channels in {spec.groups} groups; leave prune out of compress.methods"
            )


def _dependencies(net: StudentNet) -> Any:
    """The library's graph of `net`; it watches gradients, so the weights must have them."""
    try:
        import torch_pruning
    except ImportError:
        raise MissingDependencyError(
            "prune needs torch-pruning; install it with: pip install 'edgekd[learn]'"
        ) from None
    for parameter in net.parameters():
        parameter.requires_grad_(True)
    sample = torch.zeros(1, *net.structure.input_shape)
    return torch_pruning.DependencyGraph().build_dependency(net, example_inputs=sample)


def _module(layer: Any) -> Any:
    return layer.conv if isinstance(layer, PaddedConv) else layer


def _groups(graph: Any, net: StudentNet) -> list[_Group]:
    """All groups but the one of the network's outputs, in the order of their first layer."""
    import torch_pruning

    importance = torch_pruning.importance.GroupMagnitudeImportance(p=2, normalizer="sum")
    place = {_module(layer): index for index, layer in enumerate(net.layers)}
    last = max(place[_module(layer)] for layer in net.layers if hasattr(_module(layer), "weight"))
    kinds = [torch.nn.Conv2d, torch.nn.Linear]
    fixed = [_module(net.layers[index]) for index in (last, *_on_inputs(net.structure))]
    found = []
    for group in graph.get_all_groups(ignored_layers=fixed, root_module_types=kinds):
        members = {
            place[dependency.target.module]
            for dependency, _ in group
            if dependency.target.module in place and graph.is_out_channel_pruning_fn(dependency.handler)
        }
        scores = importance(group).detach()
        order = torch.argsort(scores, stable=True)
        weighted = sorted(index for index in members if net.structure.layers[index].weights)
        found.append(_Group(tuple(weighted), tuple(order.tolist()), tuple(scores[order].tolist())))
    return sorted(found, key=lambda group: group.layers)


def _on_inputs(structure: Structure) -> list[int]:
    """Depthwise layers on the network's own input, whose channels are the samples'."""
    found: list[int] = []
    for index, spec in enumerate(structure.layers):
        if spec.groups > 1 and structure.source(index) in (INPUT, *found):
            found.append(index)
    return found


def _remove(graph: Any, module: Any, channels: Sequence[int]) -> None:
    if channels:
        how = graph.get_pruner_of_module(module).prune_out_channels
        graph.get_pruning_group(module, how, idxs=sorted(channels)).prune()


def _outputs(structure: Structure, groups: Sequence[_Group], kept: Sequence[int]) -> list[int]:
    outputs = [spec.outputs for spec in structure.layers]
    for group, count in zip(groups, kept, strict=True):
        for layer in group.layers:
            outputs[layer] = count
    return outputs


def _widths(
    structure: Structure, groups: Sequence[_Group], keep: float, cost: Callable[[Structure], float]
) -> list[int]:
    """How many channels of each group stay: as many steps of `_path` as the target takes.

    Each step costs less than the one before, so the last of them is found by halving: a device's cost
    takes a while to tell.
    """

    def share(steps: int) -> float:
        return cost(narrowed(structure, _outputs(structure, groups, path[steps]))) / whole

    path, whole = _path(structure, groups), cost(structure)
    limit = keep * (1 + 1e-9)  # a share that was computed from whole channels is met
    if share(len(path) - 1) > limit:
        raise BudgetError(
            f"compress.keep asks for {keep:g} of the cost, and a quarter of each layer's channels, in "
            f"multiples of four, still costs {share(len(path) - 1):.3f}; ask for more, or take a smaller "
            "student"
        )
    return path[bisect.bisect_left(range(len(path)), True, key=lambda steps: share(steps) <= limit)]


def _path(structure: Structure, groups: Sequence[_Group]) -> list[list[int]]:
    """The groups' channels from all of them down to the floor: each time the step of four of least loss for
    the multiply-accumulates that it saves.

    loss: importance of what goes over that of what was left in its group (as LAMP has it: Lee et al. 2021,
    arXiv 2010.07611), so that the last channels of a group are dearer than its first.
    """
    path = [[len(group.order) for group in groups]]
    while steps := list(_steps(structure, groups, path[-1])):
        _, index, after = min(steps)
        path.append([*path[-1][:index], after, *path[-1][index + 1 :]])
    return path


def _steps(
    structure: Structure, groups: Sequence[_Group], kept: list[int]
) -> Iterator[tuple[float, int, int]]:
    """(loss for a multiply-accumulate saved, group, its channels afterwards) of each step that there is."""
    now = narrowed(structure, _outputs(structure, groups, kept)).macs
    for index, group in enumerate(groups):
        after = group.kept_next(kept[index])
        if after is not None:
            trial = [*kept[:index], after, *kept[index + 1 :]]
            saved = now - narrowed(structure, _outputs(structure, groups, trial)).macs
            whole = len(group.order)
            left = max(sum(group.importance[whole - kept[index] :]), 1e-30)
            lost = sum(group.importance[whole - kept[index] : whole - after]) / left
            yield lost / saved, index, after


def _up(count: int) -> int:
    return -(-count // STEP) * STEP
