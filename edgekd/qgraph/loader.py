"""A model file's bytes to a QGraph, by what the bytes and the file's name say they are."""

from __future__ import annotations

from edgekd.errors import ArtifactError
from edgekd.qgraph.ir import QGraph


def load_graph(data: bytes, file_name: str) -> QGraph:
    """The graph of a .tflite (told by its bytes or suffix) or .onnx (by its suffix) file.

    `file_name` is used for the choice and for messages, never opened. Raises ArtifactError for
    anything else or broken, UnsupportedOpError for a model that edgekd cannot run.
    """
    suffix = file_name.rsplit(".", 1)[-1].lower() if "." in file_name else ""
    if not data:
        raise ArtifactError(f"{file_name} is empty; give a .tflite or .onnx model")
    if data[4:8] == b"TFL3" or suffix == "tflite":
        from edgekd.qgraph.tflite_reader import read_tflite

        return read_tflite(data, file_name)
    if suffix == "onnx":
        from edgekd.qgraph.onnx_reader import read_onnx

        return read_onnx(data, file_name)
    raise ArtifactError(f"{file_name} is neither a .tflite nor a .onnx model; give one of the two")
