"""One model ready to answer, by each engine that a bundle knows: ONNX Runtime, LiteRT, compiled C.

An engine is loaded by `open_engine` and answers one sample a call. Only what is asked for is imported, so
a device without any runtime, numpy included, still runs the compiled C.
"""

from __future__ import annotations

import array
import ctypes
import importlib
import importlib.metadata
import platform
import struct
import sys
from pathlib import Path
from typing import Any, Protocol

from .arrays import sample_shape, sample_values
from .messages import AgentError

ABI = 1  # of the shared objects: firmware_stubs/linux/native_model.c
NOT_A_NUMBER = 1  # what edgekd_run answers to a NaN

# Engine -> the distributions that bring it, the first one is named in errors.
PACKAGES: dict[str, tuple[str, ...]] = {
    "onnxruntime": ("onnxruntime",),
    "litert": ("ai-edge-litert", "tflite-runtime"),
    "native": (),
}
MACHINES = {"aarch64": "aarch64", "arm64": "aarch64", "armv7l": "armv7", "armv8l": "armv7"}
MACHINES |= {"x86_64": "x86_64", "amd64": "x86_64"}


class Engine(Protocol):
    """A loaded model. `tools`: versions of what runs it."""

    tools: dict[str, str]

    def prepare(self, row: memoryview[Any]) -> Any:
        """One sample of the bundle, float32, as `run` takes it."""

    def run(self, sample: Any) -> Any:
        """One inference: what a measurement times."""

    def floats(self, answer: Any) -> list[float]:
        """The answer of `run` as real numbers."""

    def integers(self, row: memoryview[Any]) -> bytes | None:
        """The answer's raw integers, of an engine that is exact; None of any other."""


def architecture() -> str:
    """Of this Python: a 32-bit one under a 64-bit kernel counts as 32-bit."""
    name = MACHINES.get(platform.machine().lower(), platform.machine().lower())
    if struct.calcsize("P") == 8:
        return name
    return {"aarch64": "armv7", "x86_64": "i686"}.get(name, name)


def installed() -> dict[str, str | None]:
    """Engine -> the version that is installed here, "" where it needs none, None where it is missing."""
    return {engine: version_of(engine) for engine in PACKAGES}


def version_of(engine: str) -> str | None:
    """As in `installed`, without importing anything heavy."""
    if not PACKAGES[engine]:
        return ""
    for name in PACKAGES[engine]:
        try:
            return f"{name} {importlib.metadata.version(name)}"
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def file_of(variant: dict[str, Any]) -> str:
    """The variant's file for this machine; AgentError `runtime` where it has none."""
    files: dict[str, str] = variant["files"]
    found = files.get("any") or files.get(architecture())
    if found is None:
        raise AgentError("runtime", f"the bundle has no {architecture()} file of it, only {', '.join(files)}")
    return found


def open_engine(directory: Path, bundle: dict[str, Any], name: str, threads: int = 1) -> Engine:
    """Load the variant `name` of the verified bundle in `directory`.

    Raises AgentError `runtime` (with the line that installs it) or `failed`. What a runtime itself raises
    passes through.
    """
    variant = bundle["variants"][name]
    path, shape = directory / file_of(variant), tuple(bundle["input"]["shape"])
    if variant["engine"] == "native":
        return NativeEngine(path, shape, variant["layout"])
    if variant["engine"] == "litert":
        return LitertEngine(path, shape, variant["layout"], threads)
    return OnnxEngine(path, shape, variant["layout"], threads)


def import_runtime(engine: str) -> Any:
    """The runtime's module; AgentError `runtime` with the line that installs it."""
    names = {"onnxruntime": ("onnxruntime",), "litert": ("ai_edge_litert", "tflite_runtime")}[engine]
    reason = ""
    for name in names:
        try:
            importlib.import_module("numpy")
            return importlib.import_module(name if engine == "onnxruntime" else f"{name}.interpreter")
        except ImportError as error:
            reason = reason or str(error).strip().split("\n")[0]
    raise AgentError("runtime", f"the runtime does not load ({reason}); {how_to_install(engine)}") from None


def how_to_install(engine: str) -> str:
    """The line that mends a missing runtime, for this Python."""
    return f"install it: {sys.executable} -m pip install {PACKAGES[engine][0]}"


class OnnxEngine:
    """ONNX Runtime on the processor; one inter-op thread, `threads` within an operator."""

    def __init__(self, path: Path, shape: tuple[int, ...], layout: str, threads: int) -> None:
        runtime = import_runtime("onnxruntime")
        self._numpy = importlib.import_module("numpy")
        options = runtime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        self._session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._input, self._shape, self._layout = self._session.get_inputs()[0].name, shape, layout
        self.tools = {"onnxruntime": runtime.__version__, "numpy": self._numpy.__version__}

    def prepare(self, row: memoryview[Any]) -> Any:
        values = sample_values(row, self._shape, self._layout)
        shape = sample_shape(self._shape, self._layout)
        return {self._input: self._numpy.frombuffer(values, self._numpy.float32).reshape(shape)}

    def run(self, sample: Any) -> Any:
        return self._session.run(None, sample)[0]

    def floats(self, answer: Any) -> list[float]:
        result: list[float] = answer.astype("float64").ravel().tolist()
        return result

    def integers(self, row: memoryview[Any]) -> bytes | None:
        return None


class LitertEngine:
    """LiteRT, or tflite-runtime, with the XNNPACK delegate that it takes by default."""

    def __init__(self, path: Path, shape: tuple[int, ...], layout: str, threads: int) -> None:
        runtime = import_runtime("litert")
        self._numpy = importlib.import_module("numpy")
        self._interpreter = runtime.Interpreter(model_path=str(path), num_threads=threads)
        self._interpreter.allocate_tensors()
        self._shape, self._layout = shape, layout
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._output = self._interpreter.get_output_details()[0]["index"]
        version = version_of("litert") or runtime.__name__
        self.tools = {"litert": version, "numpy": self._numpy.__version__}

    def prepare(self, row: memoryview[Any]) -> Any:
        values = sample_values(row, self._shape, self._layout)
        shape = sample_shape(self._shape, self._layout)
        return self._numpy.frombuffer(values, self._numpy.float32).reshape(shape)

    def run(self, sample: Any) -> Any:
        self._interpreter.set_tensor(self._input, sample)
        self._interpreter.invoke()
        return self._interpreter.get_tensor(self._output)

    def floats(self, answer: Any) -> list[float]:
        result: list[float] = answer.astype("float64").ravel().tolist()
        return result

    def integers(self, row: memoryview[Any]) -> bytes | None:
        return None


class NativeEngine:
    """The generated C in a shared object: one thread, no runtime, bit for bit the microcontroller's."""

    def __init__(self, path: Path, shape: tuple[int, ...], layout: str) -> None:
        self._library = ctypes.CDLL(str(path.resolve()))
        self._library.edgekd_digest.restype = ctypes.c_char_p
        self._library.edgekd_state_bytes.restype = ctypes.c_uint32
        abi = self._library.edgekd_abi()
        if abi != ABI:
            raise AgentError("failed", f"{path.name} has the interface {abi}, not {ABI}; export it again")
        self._shape, self._layout = shape, layout
        self._state = ctypes.create_string_buffer(self._library.edgekd_state_bytes())
        self._library.edgekd_init(self._state)
        self._values = int(self._library.edgekd_input_values())
        self._count = int(self._library.edgekd_output_values())
        self._answer = (ctypes.c_float * self._count)()
        self.tools = {"native": self._library.edgekd_digest().decode()}

    def prepare(self, row: memoryview[Any]) -> Any:
        values = sample_values(row, self._shape, self._layout)
        if len(values) != self._values:
            raise AgentError("failed", f"the model takes {self._values} values, a sample has {len(values)}")
        return (ctypes.c_float * self._values).from_buffer(values)

    def run(self, sample: Any) -> Any:
        if self._library.edgekd_run(self._state, sample, self._answer) == NOT_A_NUMBER:
            raise AgentError("failed", "the sample holds a NaN; mend the data")
        return self._answer

    def floats(self, answer: Any) -> list[float]:
        return list(array.array("f", bytes(answer)))

    def integers(self, row: memoryview[Any]) -> bytes | None:
        taken, given = ctypes.create_string_buffer(self._values), ctypes.create_string_buffer(self._count)
        if self._library.edgekd_quantize(self.prepare(row), taken) == NOT_A_NUMBER:
            raise AgentError("failed", "the sample holds a NaN; mend the data")
        self._library.edgekd_run_integers(self._state, taken, given)
        return given.raw
