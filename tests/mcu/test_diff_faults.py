"""A fault planted in each kernel, portable, DSP in C and DSP in assembly, is found in its layer by `diff`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgekd.mcu.codegen import generate
from edgekd.mcu.diff import Difference, by_reference, compare
from edgekd.mcu.diff_code import by_core, by_host
from edgekd.mcu.options import Options
from edgekd.mcu.toolchain import Compiler
from edgekd.qgraph.ir import QGraph
from tests.graphs import inputs_for
from tests.mcu import diff_faults as faults
from tests.mcu import test_packed, test_winograd
from tests.mcu.firmware_models import mcu_target
from tests.mcu.test_dsp import ITS_OWN
from tests.mcu.test_dsp import net as dsp_net

KERNELS = Path(__file__).resolve().parents[2] / "firmware_stubs" / "kernels"
TAKEN = Options(winograd=True, prefer=("winograd", *ITS_OWN))
SOURCES = {"dsp": dsp_net, "packed": test_packed.net, "winograd": test_winograd.net}
LINEAR = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


def found_on_host(
    graph: QGraph, family: str, kernel: str, clang: Compiler, folder: Path, options: Options | None = None
) -> Difference:
    model = generate(graph, family, options or Options(prefer=ITS_OWN))
    inputs = inputs_for(graph, np.random.default_rng(3), 16)
    broken = by_host(faults.faulty(model, kernel), clang, folder)
    found = compare(graph, inputs, by_reference, broken).first
    assert found is not None, "the fault changes no byte"
    assert f"model_layer_{found.op:02d}_{found.kind.lower()}" == faults.first_user(model, kernel)
    assert found.a != found.b and found.differing >= 1
    assert len(found.position) == len(graph.tensors[graph.ops[found.op].outputs[0]].shape) - 1
    assert (found.accumulator_a is not None) == (found.kind in LINEAR)
    return found


def test_a_fault_is_planted_in_every_kernel() -> None:
    kernels = {path.stem for path in KERNELS.glob("k_*.c")}
    planted = {*faults.EVERY, *faults.NO_KERNELS}
    assert kernels == planted, "plant a fault in each new kernel: tests/mcu/diff_faults.py"


@pytest.mark.parametrize("kernel", sorted(faults.PORTABLE))
def test_a_fault_in_a_portable_kernel(kernel: str, clang: Compiler, tmp_path: Path) -> None:
    found = found_on_host(faults.every_kernel(), "portable", kernel, clang, tmp_path)
    if found.kind in LINEAR:  # a clamp is behind the sum; what is gathered is before it
        same = found.accumulator_a == found.accumulator_b
        assert same == (kernel != "k_conv_2d_s8") and found.accumulator_b is not None


@pytest.mark.parametrize("kernel", sorted(faults.DSP))
def test_a_fault_in_a_dsp_kernel(kernel: str, clang: Compiler, tmp_path: Path) -> None:
    found = found_on_host(faults.every_dsp_kernel(), "dsp", kernel, clang, tmp_path)
    if found.kind in LINEAR and kernel != "k_dsp_depthwise_s8":  # it takes another channel's record
        same = found.accumulator_a == found.accumulator_b
        assert same == (kernel in ("k_dsp_pairs_s8", "k_dsp_dense_s8")) and found.accumulator_b is not None


@pytest.mark.parametrize("kernel", sorted(faults.PACKED))
def test_a_fault_in_a_kernel_of_packed_weights(kernel: str, clang: Compiler, tmp_path: Path) -> None:
    name, family, _ = faults.PACKED[kernel]
    found = found_on_host(test_packed.net(name), family, kernel, clang, tmp_path)
    same = found.accumulator_a == found.accumulator_b
    behind_the_sum = family == "portable" and kernel.endswith("_packed_s8")
    assert same == behind_the_sum and found.accumulator_b is not None


@pytest.mark.parametrize("kernel", sorted(faults.WINOGRAD))
def test_a_fault_in_winograds_convolution(kernel: str, clang: Compiler, tmp_path: Path) -> None:
    graph = test_winograd.net("square")
    found = found_on_host(graph, "dsp", kernel, clang, tmp_path, TAKEN)
    assert found.accumulator_b is None  # its sums carry a factor that is not opened


@pytest.mark.needs("unicorn")
@pytest.mark.parametrize("name", sorted(faults.ASSEMBLY))
def test_a_fault_in_assembly(name: str, clang: Compiler, tmp_path: Path) -> None:
    fault = faults.ASSEMBLY[name]
    graph = SOURCES[fault.of](fault.net)
    options = TAKEN if fault.of == "winograd" else Options(prefer=ITS_OWN)
    inputs = inputs_for(graph, np.random.default_rng(3), 8)
    planted = faults.plant(generate(graph, "dsp", options), fault)
    broken = by_core(planted, clang, mcu_target(), tmp_path)
    found = compare(graph, inputs, by_reference, broken).first
    assert found is not None, "the fault changes no byte"
    output = graph.tensors[graph.ops[found.op].outputs[0]]
    first = next(index for index, op in enumerate(graph.ops) if op.kind == fault.layer)
    assert (found.kind, found.op) == (fault.layer, first)
    assert fault.at(found.position, output.shape[-2]), found.position
    if fault.sums == "none":
        assert found.accumulator_b is None
    else:
        assert found.accumulator_b is not None
        assert (found.accumulator_a == found.accumulator_b) == (fault.sums == "same")


@pytest.mark.needs("unicorn")
def test_a_fault_in_a_portable_kernel_on_the_core(clang: Compiler, tmp_path: Path) -> None:
    graph = faults.every_kernel()
    model = faults.faulty(generate(graph), "k_depthwise_conv_2d_s8")
    inputs = inputs_for(graph, np.random.default_rng(3), 4)
    found = compare(graph, inputs, by_reference, by_core(model, clang, mcu_target(), tmp_path)).first
    assert found is not None and (found.op, found.kind) == (0, "DEPTHWISE_CONV_2D")
    assert found.b == found.a + 1 and found.accumulator_a == found.accumulator_b is not None
