"""What an updatable build does otherwise: everything that quantization decides moves into the weights.

An emitter's result is rewritten: tables become arrays of the blob, and each field of a layer's struct that
comes from a scale, a zero point or an activation's range becomes an element of the layer's array `params`.
What is left in the code follows from the structure alone (kinds of ops, attributes, shapes, dtypes, scales
per channel or per tensor), so two models of one structure have one code.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cache

import numpy as np

from edgekd.errors import ArtifactError
from edgekd.mcu.codegen_case import Address, Emission
from edgekd.mcu.codegen_text import Array, Value
from edgekd.qgraph.ir import QGraph, Tensor
from edgekd.resources import resource_dir

# Fields of the kernels' structs that quantization decides, where they hold a number.
QUANTIZED = re.compile(r"(\w+_)?(zero_point|multiplier|shift)|lowest|highest|value")
STRUCTURAL = ("depth_multiplier",)
SOFTMAX_ENTRIES = 256
LINEAR = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")

_FIELD = re.compile(r"^    (u?int\d+_t) (\w+);", re.MULTILINE)
_NESTED = re.compile(r"^    (k_\w+_t) (\w+);", re.MULTILINE)


def externalized(index: int, emission: Emission) -> Emission:
    """The emission of op `index` with its tables and quantized fields among its weights."""
    tables = {
        table.name: Array(f"model_weights_{index:02d}_{table.name}", table.values)
        for table in emission.tables
    }
    weights = [*emission.weights]
    struct = emission.struct
    if struct is not None:
        kind, fields = struct
        if kind == "k_softmax_s8_t":
            fields = dict(fields) | {"exps_length": SOFTMAX_ENTRIES}
            missing = SOFTMAX_ENTRIES - tables["exps"].values.size
            tables["exps"] = Array(tables["exps"].name, np.pad(tables["exps"].values, (0, missing)))
        values: list[int] = []
        name = f"model_weights_{index:02d}_params"
        struct = kind, _outside(kind, fields, values, name, tables)
        if values:
            weights.append(Array(name, np.array(values, np.int32)))
    calls = tuple(
        replace(call, arguments=tuple(_renamed(argument, tables) for argument in call.arguments))
        for call in emission.calls
    )
    weights += tables.values()
    return replace(emission, calls=calls, struct=struct, weights=tuple(weights), tables=())


def _renamed(argument: str | Address, tables: Mapping[str, Array]) -> str | Address:
    return tables[argument].name if isinstance(argument, str) and argument in tables else argument


def _outside(
    kind: str, fields: Mapping[str, Value], values: list[int], name: str, tables: Mapping[str, Array]
) -> Mapping[str, Value]:
    """`fields` of a struct of type `kind` with numbers from quantization appended to `values`."""
    types, result = _types(kind), dict[str, Value]()
    for field, value in fields.items():
        if isinstance(value, Mapping):
            result[field] = _outside(types[field], value, values, name, tables)
        elif isinstance(value, str):
            result[field] = tables[value].name if value in tables else value
        elif isinstance(value, int) and QUANTIZED.fullmatch(field) and field not in STRUCTURAL:
            result[field] = f"({types[field]}){name}[{len(values)}]"
            values.append(value)
        else:
            result[field] = value
    return result


@cache
def _types(kind: str) -> Mapping[str, str]:
    """Field -> C type of a kernel's struct, from its header."""
    path = resource_dir("firmware_stubs") / "kernels" / f"{kind.removesuffix('_t')}.h"
    text = path.read_text(encoding="utf-8")
    return {field: found for pattern in (_FIELD, _NESTED) for found, field in pattern.findall(text)}


def difference(built: QGraph, new: QGraph) -> str | None:
    """The first place where two graphs are not of one structure, as a clause; None where they are."""
    if len(built.ops) != len(new.ops) or len(built.tensors) != len(new.tensors):
        sizes = [f"{len(graph.ops)} ops and {len(graph.tensors)} tensors" for graph in (new, built)]
        return f"it has {sizes[0]}, not {sizes[1].replace(' ops', '').replace(' tensors', '')}"
    for index, (a, b) in enumerate(zip(built.ops, new.ops, strict=True)):
        if (a.kind, a.inputs, a.outputs, dict(a.attrs)) != (b.kind, b.inputs, b.outputs, dict(b.attrs)):
            return f"{new.label(index)} is not the {a.kind} with the same inputs and attributes"
    for x, y in zip(built.tensors, new.tensors, strict=True):
        for what in ("shape", "dtype", "axis"):
            if getattr(x, what) != getattr(y, what):
                return f"tensor {y.name} has {what} {getattr(y, what)}, not {getattr(x, what)}"
        if len(x.scale) != len(y.scale) or x.is_constant != y.is_constant:
            return f"tensor {y.name} is {_manner(y)}, not {_manner(x)}"
    if (built.inputs, built.outputs) != (new.inputs, new.outputs):
        return "its inputs or outputs are other tensors"
    return _shaping_difference(built, new) or _edge_difference(built, new)


def _shaping_difference(built: QGraph, new: QGraph) -> str | None:
    """Constants that are part of the structure: paddings, axes, new shapes."""
    for op in new.ops:
        for index in op.inputs[1:] if op.kind not in LINEAR else ():
            a, b = built.tensors[index].data, new.tensors[index].data
            if a is not None and b is not None and b.dtype.name in ("int32", "int64") and (a != b).any():
                return f"{new.tensors[index].name}, which {op.kind} takes its shape from, has other values"
    return None


def _edge_difference(built: QGraph, new: QGraph) -> str | None:
    """The caller's own code knows the edges' scales: they cannot change with the weights."""
    for index in (*built.inputs, *built.outputs):
        a, b = built.tensors[index], new.tensors[index]
        if a.scale[:1].tolist() != b.scale[:1].tolist() or a.zero_point != b.zero_point:
            return (
                f"{b.name}, an input or output, has scale {float(b.scale[0]):.6g} and zero point "
                f"{b.zero_point}, not {float(a.scale[0]):.6g} and {a.zero_point}, which the firmware's "
                "own code knows"
            )
    return None


def _manner(tensor: Tensor) -> str:
    constant = "a constant" if tensor.is_constant else "computed"
    return f"{constant} with {len(tensor.scale)} scales"


def refuse_other_structure(built: QGraph, new: QGraph) -> None:
    """ArtifactError in one sentence unless the weights of `new` can replace those of `built`."""
    found = difference(built, new)
    if found is not None:
        raise ArtifactError(
            f"the weights of {new.name} cannot replace those of {built.name}: {found}; "
            "build its own firmware, or fine-tune without changing the structure"
        )
