"""An ONNX file as plain data (numpy and tuples), checked once: what the reader of QDQ models works on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekd.errors import ArtifactError, MissingDependencyError, UnsupportedOpError

Array = npt.NDArray[Any]
Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Node:
    """One ONNX node; `inputs` may hold "" where an optional one is absent."""

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attrs: dict[str, Any]

    def integers(self, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
        """A list attribute of whole numbers."""
        return tuple(int(v) for v in self.attrs.get(name, default))

    def input(self, position: int) -> str:
        """The name of input `position`, "" where it is absent."""
        return self.inputs[position] if position < len(self.inputs) else ""


@dataclass(frozen=True, eq=False)
class OnnxModel:
    """A checked model.

    shapes: of every tensor, all extents known. dtypes: of the inputs. consumers: how many read a tensor.
    """

    name: str
    nodes: tuple[Node, ...]
    constants: dict[str, Array]
    shapes: dict[str, Shape]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    dtypes: dict[str, str]
    consumers: dict[str, int]
    metadata: Mapping[str, str] = field(default_factory=dict)

    def describe(self, node: Node) -> str:
        """How a person finds `node`: file, layer, operator, shapes."""
        inputs = ", ".join(_show(self.shapes.get(name)) for name in node.inputs if name)
        outputs = ", ".join(_show(self.shapes.get(name)) for name in node.outputs)
        return f"{self.name}, layer {node.name or node.outputs[0]!r}: {node.kind} ({inputs} -> {outputs})"


def parse_proto(data: bytes, name: str) -> Any:
    """The onnx.ModelProto in `data`. Raises ArtifactError when it is not a whole ONNX model."""
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError:
        raise MissingDependencyError(
            "reading an ONNX model needs the package onnx; install it with: pip install 'edgekd[learn]'"
        ) from None
    try:
        model = onnx.load_model_from_string(data)
        if not model.graph.node:
            raise ArtifactError(f"{name} is not an ONNX model: it is empty, truncated or of another format")
        onnx.checker.check_model(model)
    except (DecodeError, onnx.checker.ValidationError, UnicodeDecodeError, ValueError) as error:
        raise ArtifactError(
            f"{name} is not a whole ONNX model ({_first_line(error)}); export it again"
        ) from None
    return model


def parse(data: bytes, name: str) -> OnnxModel:
    """`data` checked, its shapes inferred, its constants as arrays.

    Raises ArtifactError for broken bytes, UnsupportedOpError for dynamic shapes.
    """
    import onnx

    model = parse_proto(data, name)
    try:
        model = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
        constants = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
        nodes = tuple(_node(node) for node in model.graph.node)
    except Exception as error:  # the C++ checker and numpy raise what they like on damaged files
        raise ArtifactError(
            f"{name} is not a sound ONNX model ({_first_line(error)}); export it again"
        ) from None
    for node in nodes:
        if node.kind == "Constant":
            constants[node.outputs[0]] = np.asarray(node.attrs["value"])
    values = (*model.graph.input, *model.graph.value_info, *model.graph.output)
    shapes = {name: array.shape for name, array in constants.items()}
    shapes |= {v.name: _shape(v, name) for v in values if v.type.tensor_type.HasField("shape")}
    dtypes = {v.name: _dtype(v, name) for v in model.graph.input}
    consumers: dict[str, int] = {}
    for used in (*(i for node in nodes for i in node.inputs), *(v.name for v in model.graph.output)):
        consumers[used] = consumers.get(used, 0) + 1
    inputs = tuple(v.name for v in model.graph.input if v.name not in constants)
    outputs = tuple(v.name for v in model.graph.output)
    kept = tuple(node for node in nodes if node.kind != "Constant")
    metadata = {item.key: item.value for item in model.metadata_props}
    return OnnxModel(name, kept, constants, shapes, inputs, outputs, dtypes, consumers, metadata)


def _node(node: Any) -> Node:
    import onnx

    attrs: dict[str, Any] = {}
    for attribute in node.attribute:
        value = onnx.helper.get_attribute_value(attribute)
        if isinstance(value, onnx.TensorProto):
            value = onnx.numpy_helper.to_array(value)
        attrs[attribute.name] = value.decode() if isinstance(value, bytes) else value
    if node.op_type == "Constant" and "value" not in attrs:
        attrs["value"] = np.asarray(next(iter(attrs.values())))
    kind = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
    return Node(kind, node.name, tuple(node.input), tuple(node.output), attrs)


def _shape(value: Any, name: str) -> Shape:
    extents = tuple(d.dim_value if d.HasField("dim_value") else -1 for d in value.type.tensor_type.shape.dim)
    if any(extent < 1 for extent in extents):
        shown = ", ".join("?" if e < 1 else str(e) for e in extents)
        raise UnsupportedOpError(
            f"{name}, tensor {value.name!r} has the dynamic shape [{shown}]; "
            "export with fixed shapes and batch 1"
        )
    return extents


def _dtype(value: Any, name: str) -> str:
    import onnx

    try:
        return str(onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))
    except (KeyError, ValueError, TypeError):
        raise ArtifactError(f"{name}, input {value.name!r} has no known dtype; export it again") from None


def _show(shape: Shape | None) -> str:
    return "x".join(map(str, shape)) if shape else "?"


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:160]
