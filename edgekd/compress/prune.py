"""Structured pruning: whole channels go, so that the network becomes narrower and nothing else.

Channels that an addition or a depthwise convolution joins can only go together. Which those are is found by
Torch-Pruning's dependency graph (Fang et al. 2023, arXiv 2301.12900), which traces the network; so is how
much a channel matters: the sum of squares of all weights that would go with it (with batch norm folded into
them), as a share of its group's. How many channels each layer keeps is decided in widths.py, in multiples of
four, and the result is checked against it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch

from edgekd.compress.widths import (
    DeviceCosts,
    Group,
    choose,
    device_limit,
    given,
    limit_of,
    listed,
    narrowed,
    outputs_of,
)
from edgekd.errors import MissingDependencyError, UnsupportedOpError
from edgekd.learn.structure import INPUT, Structure
from edgekd.learn.student import PaddedConv, StudentNet
from edgekd.recipe import CompressParams


def plain_cost(unit: str) -> Callable[[Structure], float]:
    """The cost of a structure that needs no device."""
    return lambda structure: float(getattr(structure, unit))


def prune(
    net: StudentNet, params: CompressParams, cost: Callable[[Structure], float] | None = None
) -> StudentNet:
    """A narrower folded student, untuned: of `params.prune_channels`, or of `params.keep` of the cost.

    cost: of a structure, in any unit, less for fewer channels; it is asked a few times. None: the
    multiply-accumulates or the bytes of weights, as `params.prune_cost` says. Raises BudgetError where the
    floor of each layer still costs more, ConfigError for widths that cannot be, UnsupportedOpError for a
    layer that the graph cannot follow.
    """
    _check_followable(net.structure)
    narrow = copy.deepcopy(net)
    graph = _dependencies(narrow)
    groups = _groups(graph, narrow)
    if params.prune_channels:
        kept = given(net.structure, groups, params.prune_channels)
    else:
        limit = limit_of(net.structure, params, cost or plain_cost(params.prune_cost))
        kept = choose(net.structure, groups, limit, params.prune_floor)
    for group, count in zip(groups, kept, strict=True):
        _remove(graph, _module(narrow.layers[group.layers[0]]), group.order[: len(group.order) - count])
    outputs = outputs_of(net.structure, groups, kept)
    result = StudentNet(narrowed(net.structure, outputs), normalised=False)
    try:
        result.load_state_dict(narrow.state_dict())
    except RuntimeError as error:
        detail = str(error).splitlines()[-1].strip()
        raise UnsupportedOpError(
            f"pruning left layers that do not fit each other ({detail}); leave prune out of compress.methods"
        ) from None
    return result.eval()


def widths_within(
    net: StudentNet, params: CompressParams, costs: DeviceCosts
) -> tuple[list[dict[str, str | int]], Structure]:
    """The widths that keep `params.prune_to`, as prune_channels has them, and the structure of them.

    Raises as `prune` does; BudgetError says the nearest and by how much it is too dear.
    """
    _check_followable(net.structure)
    copied = copy.deepcopy(net)
    groups = _groups(_dependencies(copied), copied)
    kept = choose(net.structure, groups, device_limit(net.structure, params, costs), params.prune_floor)
    return listed(groups, kept), narrowed(net.structure, outputs_of(net.structure, groups, kept))


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


def _groups(graph: Any, net: StudentNet) -> list[Group]:
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
        found.append(Group(tuple(weighted), tuple(order.tolist()), tuple(scores[order].tolist())))
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
