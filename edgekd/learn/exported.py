"""A teacher from torch.export: its graph is run node by node, aten operators and integer arithmetic alone.

No line of Python is made from the file, and no name in it leads anywhere but into torch.ops.aten. What that
does not cover is refused by name.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from edgekd.errors import ArtifactError, UnsupportedOpError
from edgekd.learn.archive import DTYPES, Program, read_archive
from edgekd.learn.foreign import as_wanted, batch_size, refuse_other_classes

Values = dict[str, Any]
Read = Callable[[Values], Any]

_ATEN = re.compile(r"torch\.ops\.aten\.(\w+)\.(\w+)")
_FILES = ("from_file", "save", "load")  # aten has operators that touch files
_CHECKS = ("_assert", "sym_constrain")  # of sizes, when it was exported
_ARITHMETIC = (
    *("add", "sub", "mul", "floordiv", "truediv", "mod", "neg", "getitem"),
    *("eq", "ne", "lt", "le", "gt", "ge"),
)
_STRINGS = ("none", "tanh", "floor", "trunc", "mean", "sum", "constant", "reflect", "replicate", "circular")
_FORMATS = {1: torch.contiguous_format, 2: torch.channels_last, 4: torch.preserve_format}
_PLAIN = ("as_int", "as_ints", "as_float", "as_floats", "as_bool", "as_bools", "as_int_lists")
_SYMBOLS = ("as_sym_int", "as_sym_bool", "as_sym_float")


@dataclass(frozen=True, eq=False)
class Step:
    """One node. last: names that nothing behind it reads."""

    call: Callable[..., Any]
    positional: tuple[Read, ...]
    named: dict[str, Read]
    keep: Callable[[Values, Any], None]
    last: tuple[str, ...]


class ExportedNet(nn.Module):
    """An exported program with one input [N, C, H, W] and logits as its one output; it predicts only.

    unit: it wants pixels in 0 .. 1 rather than as the data set feeds them. A program whose batch is fixed is
    asked in parts of that size. Raises ArtifactError or UnsupportedOpError.
    """

    def __init__(self, content: bytes, unit: bool, classes: int, where: str) -> None:
        super().__init__()
        program = read_archive(content, where)
        self.unit, self.classes, self.where = unit, classes, where
        try:
            self.input, self.output, self.bound = _signature(program, where)
            sizes = program.graph["tensor_values"][self.input]["sizes"]
            self.shape: list[Any] = [each.get("as_int", "free") for each in sizes]
            self.steps = _steps(program.graph, self.output, where)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise ArtifactError(
                f"{where}: its graph is not as torch 2.13 writes it ({error}); export it anew"
            ) from None
        for index, name in enumerate(sorted(set(self.bound.values()))):
            self.register_buffer(f"t{index}", program.tensors[name], persistent=False)
        self._buffer_of = {name: f"t{i}" for i, name in enumerate(sorted(set(self.bound.values())))}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        fed = as_wanted(x, self.unit)
        size = batch_size(self.shape, fed.shape, self.where)
        try:
            logits = torch.cat([self._run(fed[i : i + size]) for i in range(0, len(fed), size)])
        except (RuntimeError, KeyError, TypeError, IndexError) as error:
            detail = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ArtifactError(
                f"{self.where} does not run on samples of shape {tuple(x.shape[1:])} ({detail[:160]}); "
                "export it anew"
            ) from None
        refuse_other_classes(logits.shape, len(x), self.classes, self.where)
        return logits.float()

    def _run(self, x: torch.Tensor) -> torch.Tensor:
        values: Values = {arg: self.get_buffer(self._buffer_of[name]) for arg, name in self.bound.items()}
        values |= {self.input: x.clone(), "": x.device}  # an operator may write into its input
        for step in self.steps:
            found = step.call(
                *(r(values) for r in step.positional), **{k: r(values) for k, r in step.named.items()}
            )
            step.keep(values, found)
            for name in step.last:
                values.pop(name, None)
        result: torch.Tensor = values[self.output]
        return result


def _signature(program: Program, where: str) -> tuple[str, str, dict[str, str]]:
    """(the input's name, the output's, names of the graph -> names of tensors)."""
    inputs, bound = [], {}
    for spec in program.signature["input_specs"]:
        ((kind, row),) = spec.items()
        if kind == "user_input":
            inputs.append(row["arg"]["as_tensor"]["name"])
        elif kind in ("parameter", "buffer", "tensor_constant"):
            name = row[f"{kind}_name"]
            if name not in program.tensors:
                raise ValueError(f"{name} is not in the archive")
            bound[row["arg"]["name"]] = name
        else:
            raise UnsupportedOpError(f"{where} takes a {kind}; export a network of one image")
    if len(inputs) != 1:
        raise ArtifactError(f"{where} takes {len(inputs)} inputs; export it with one, the image")
    outputs = program.signature["output_specs"]
    if any("mutation" in kind for spec in outputs for kind in spec):
        raise ArtifactError(
            f"{where} changes its own weights when it runs; call model.eval() before exporting it"
        )
    if len(outputs) != 1:
        raise ArtifactError(f"{where} gives {len(outputs)} outputs; export it with one, the logits")
    return inputs[0], outputs[0]["user_output"]["arg"]["as_tensor"]["name"], bound


def _steps(graph: dict[str, Any], output: str, where: str) -> list[Step]:
    found: list[Step] = []
    read = {output}
    for node in reversed(graph["nodes"]):
        call = _function(node["target"], where)
        if call is None:
            continue
        names = set(_names([row["arg"] for row in node["inputs"]]))
        positional, named = [], {}
        for row in node["inputs"]:
            if row["name"] in ("training", "train") and row["arg"].get("as_bool"):
                raise ArtifactError(f"{where} was exported while training; call model.eval() before")
            if row.get("kind") == 2:
                named[row["name"]] = _value(row["arg"], where)
            else:
                positional.append(_value(row["arg"], where))
        found.append(Step(call, tuple(positional), named, _keep(node["outputs"]), tuple(names - read)))
        read |= names
    return found[::-1]


def _function(target: str, where: str) -> Callable[..., Any] | None:
    """What a node calls; None for a check of sizes, which the shape of the input has passed here."""
    aten = _ATEN.fullmatch(target)
    if aten and aten[1].startswith(_CHECKS):
        return None
    if aten and not aten[1].startswith(_FILES):
        packet = getattr(torch.ops.aten, aten[1], None)
        known = packet.overloads() if isinstance(packet, torch._ops.OpOverloadPacket) else ()  # type: ignore[no-untyped-call]
        if aten[2] in known:
            overload: Callable[..., Any] = getattr(packet, aten[2])
            return overload
    if target.startswith("_operator.") and target.split(".", 1)[1] in _ARITHMETIC:
        function: Callable[..., Any] = getattr(operator, target.split(".", 1)[1])
        return function
    raise UnsupportedOpError(
        f"{where} calls {target[:80]}, which is not run from a file; "
        "export it as plain aten operators, or as ONNX"
    )


def _names(args: Sequence[dict[str, Any]]) -> list[str]:
    """Every name of the graph in some arguments."""
    found: list[str] = []
    pending: list[Any] = list(args)
    while pending:
        each = pending.pop()
        if isinstance(each, dict):
            found += [each[key] for key in ("name", "as_name") if isinstance(each.get(key), str)]
            pending += each.values()
        elif isinstance(each, list):
            pending += each
    return found


def _value(arg: dict[str, Any], where: str) -> Read:
    """How an argument is read from the values so far."""
    ((kind, value),) = arg.items()
    if kind in _PLAIN:
        plain = float(value) if kind == "as_float" else value  # infinities are written as text
        return lambda values: plain
    if kind in ("as_none", "as_layout"):  # layouts: dense alone, which is the default
        return lambda values: None
    if kind in ("as_tensor", *_SYMBOLS):
        name = value.get("name", value.get("as_name"))
        return (lambda values: values[name]) if name is not None else _value(value, where)
    if kind in ("as_tensors", "as_optional_tensors", "as_sym_ints"):
        wrap = {"as_tensors": "as_tensor", "as_sym_ints": "as_sym_int"}.get(kind)
        reads = [_value({wrap: each} if wrap else each, where) for each in value]
        return lambda values: [read(values) for read in reads]
    if kind == "as_scalar_type" and value in DTYPES:
        return lambda values: DTYPES[value]
    if kind == "as_memory_format" and value in _FORMATS:
        return lambda values: _FORMATS[value]
    if kind == "as_device":  # where it was exported says nothing about here
        return lambda values: values[""]
    if kind == "as_string" and value in _STRINGS:
        return lambda values: value
    raise UnsupportedOpError(
        f"{where}: an operator takes {kind} {str(value)[:40]!r}, which is not run from a file"
    )


def _keep(outputs: Sequence[dict[str, Any]]) -> Callable[[Values, Any], None]:
    """How a node's result is put among the values."""
    if len(outputs) != 1:
        names = [_names([each]) for each in outputs]
        return lambda values, found: values.update(
            {name[0]: each for name, each in zip(names, found, strict=True) if name}
        )
    ((kind, value),) = outputs[0].items()
    if kind == "as_tensors":
        listed = [each["name"] for each in value]
        return lambda values, found: values.update(zip(listed, found, strict=True))
    (name,) = _names([outputs[0]]) or [""]
    return lambda values, found: values.update({name: found} if name else {})
