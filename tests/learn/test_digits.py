"""The shipped recipe from data to integers: the accuracy that is promised (half a CPU-minute)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from edgekd.data import load_dataset
from edgekd.evaluate.metrics import accuracy, agreement, correct
from edgekd.export.onnx_session import run_onnx
from edgekd.learn.student import load_student
from edgekd.learn.teacher import load_teacher
from edgekd.learn.torch_tools import predict
from edgekd.qgraph.onnx_reader import read_onnx
from edgekd.qgraph.reference import run
from edgekd.recipe import load_recipe
from tests.learn.chain import RECIPES, make_chain


def test_teacher_student_and_integers_keep_their_bounds(tmp_path: Path) -> None:
    chain = make_chain(load_recipe("digits", [RECIPES]), tmp_path / "chain")
    x, y = load_dataset(chain.data).part("test")
    assert len(y) == 360
    assert accuracy(y, predict(load_teacher(chain.teacher).net, x)) >= 0.985
    student = load_student(chain.compressed)
    assert student.net.structure.weight_bytes <= 4096 and student.net.structure.macs <= 40_000
    int8 = chain.int8.read_bytes()
    integers = run(read_onnx(int8, "int8.onnx"), [np.ascontiguousarray(x.transpose(0, 2, 3, 1))])[0]
    assert accuracy(y, integers) >= 0.975
    assert correct(y, predict(student.net, x)) - correct(y, integers) <= 3
    assert agreement(integers, run_onnx(int8, x)) >= 0.99
    header = json.loads((chain.compressed / "student.json").read_text())
    assert header["weight_bytes"] == student.net.structure.weight_bytes
