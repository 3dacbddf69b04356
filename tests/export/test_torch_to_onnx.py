"""torch to ONNX: the same numbers, fixed bytes, nothing of the machine in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from edgekd.data import load_dataset
from edgekd.errors import ArtifactError, VerifyError
from edgekd.export.onnx_session import run_onnx
from edgekd.export.torch_to_onnx import check_equal, export_net, export_student, simplify
from edgekd.learn.student import load_student
from edgekd.learn.torch_tools import predict
from tests.learn.chain import Chain


def test_onnx_runtime_says_what_torch_says(chain: Chain) -> None:
    student, data = load_student(chain.compressed), load_dataset(chain.data)
    x, _ = data.part("test")
    difference = np.abs(run_onnx(chain.model.read_bytes(), x) - predict(student.net, x)).max()
    assert difference <= 1e-4


def test_the_graph_is_small_and_static(chain: Chain) -> None:
    model = onnx.load(chain.model)
    onnx.checker.check_model(model, full_check=True)
    kinds = [node.op_type for node in model.graph.node]
    assert kinds == ["Conv", "Relu"] * 5 + ["ReduceMean", "Gemm"]
    assert model.opset_import[0].version == 18
    assert [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim] == [1, 1, 8, 8]


def test_stride_two_is_padded_below_and_right_only(chain: Chain) -> None:
    """SAME on an even extent: the exporter folds our pad into the convolution."""
    strided = [
        {a.name: list(a.ints) for a in node.attribute}
        for node in onnx.load(chain.model).graph.node
        if node.op_type == "Conv" and any(a.name == "strides" and a.ints[0] == 2 for a in node.attribute)
    ]
    assert [attrs["pads"] for attrs in strided] == [[0, 0, 1, 1]]


def test_nothing_of_the_machine_is_in_the_file(chain: Chain) -> None:
    model = onnx.load(chain.model)
    assert not model.metadata_props and not model.doc_string and not model.functions
    for part in (*model.graph.node, *model.graph.initializer, *model.graph.value_info, *model.graph.input):
        assert not part.metadata_props and not part.doc_string, part.name
    content = chain.model.read_bytes()
    assert (
        b".py" not in content
        and b"site-packages" not in content
        and b"/" not in content.replace(b"://", b"")[:200]
    )


def test_a_second_export_has_the_same_bytes(chain: Chain, tmp_path: Path) -> None:
    export_student(chain.compressed, chain.data, tmp_path)
    assert (tmp_path / "model.onnx").read_bytes() == chain.model.read_bytes()


def test_a_model_that_differs_from_torch_is_refused(chain: Chain) -> None:
    student, data = load_student(chain.compressed), load_dataset(chain.data)
    with torch.no_grad():
        student.net.layers[-1].bias += 0.01
    with pytest.raises(VerifyError, match=r"differs from torch by 0.01"):
        check_equal(student.net, chain.model.read_bytes(), data.part("validation")[0][:4])


def test_a_network_of_ones_own_exports(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3, padding=1),
        torch.nn.ReLU6(),
        torch.nn.Flatten(),
        torch.nn.Linear(4 * 5 * 7, 3),
    )
    model = export_net(net, (3, 5, 7))
    x = np.random.Generator(np.random.Philox(0)).normal(size=(3, 3, 5, 7)).astype(np.float32)
    assert check_equal(net, model, x) <= 1e-4


def test_a_broken_model_is_refused_by_simplify() -> None:
    model = onnx.ModelProto()
    model.ir_version = 10
    model.opset_import.add().version = 18
    model.graph.name = "broken"
    model.graph.node.append(onnx.helper.make_node("Conv", ["nowhere", "neither"], ["out"]))
    with pytest.raises(ArtifactError, match="cannot be simplified"):
        simplify(model)


def test_samples_of_another_shape_are_refused(chain: Chain) -> None:
    with pytest.raises(ArtifactError, match="give it its own shape"):
        run_onnx(chain.model.read_bytes(), np.zeros((2, 1, 9, 8), np.float32))
    with pytest.raises(ArtifactError, match="cannot load the model"):
        run_onnx(b"nothing", np.zeros((2, 1, 8, 8), np.float32))
