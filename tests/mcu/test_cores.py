"""The DSP family's other cores, M7 and M33: the same bytes, own instruction sets, both emulators."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgekd.errors import ConfigError, VerifyError
from edgekd.mcu.codegen import generate
from edgekd.mcu.dsp.family import DSP_CORES, family_of
from edgekd.mcu.elf import read_elf
from edgekd.mcu.emulator import EmulatorResult, run_image
from edgekd.mcu.firmware import build_image
from edgekd.mcu.footprint import predict
from edgekd.mcu.isa import check_isa
from edgekd.mcu.machines import MACHINES
from edgekd.mcu.options import Options
from edgekd.mcu.toolchain import Compiler
from edgekd.mcu.unicorn_child import MODELS
from edgekd.qgraph import reference
from edgekd.qgraph.ir import QGraph
from edgekd.target import Core, load_target
from tests.graphs import Builder, inputs_for, small_net
from tests.mcu.firmware_models import mcu_target, write_model
from tests.mcu.generated import Array, merge, pack, write
from tests.mcu.test_dsp import net

ROOT = Path(__file__).resolve().parents[2]
OTHER_CORES = ("cortex-m7", "cortex-m33")
PROFILES = {"cortex-m7": "mcu-sim-m7", "cortex-m33": "mcu-sim-m33"}


def mixed() -> QGraph:
    """Every kind of the family's kernels, and portable ones."""
    b = Builder(np.random.default_rng(11), "portable")
    x = b.conv(b.input((1, 5, 5, 4)), 3)
    portable = b.graph(b.softmax(b.reshape(b.pool(x, "MAX_POOL_2D"), (1, 12))))
    return merge([net("separable"), net("difference"), small_net(np.random.default_rng(3)), portable])


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where each core's image is built once."""
    return tmp_path_factory.mktemp("images")


def run(cpu: str, compiler: Compiler, images: Path, inputs: Array, engine: str = "unicorn") -> EmulatorResult:
    """The mixed graph's image on one core."""
    target, folder = mcu_target(cpu, stack_bytes=4096), images / f"{cpu}-{compiler.kind}"
    if not (folder / "image").exists():
        generated = generate(mixed(), family_of(cpu), Options(winograd=True))
        build_image(write(generated, folder / "generated"), target, compiler, folder / "image")
    elf, layers = folder / "image/firmware.elf", folder / "generated/layers.json"
    return run_image(elf, layers, target, inputs, engine=engine, counted=2, watched=1)


@pytest.mark.parametrize("cpu", OTHER_CORES)
def test_the_outputs_equal_the_reference(cpu: str, compiler: Compiler, images: Path) -> None:
    graph = mixed()
    inputs = inputs_for(graph, np.random.default_rng(5), 6)
    found = run(cpu, compiler, images, pack(inputs))
    assert np.array_equal(found.outputs.view(np.uint8), pack(reference.run(graph, inputs)))
    assert "winograd" in (images / f"{cpu}-{compiler.kind}/generated/model_dsp.S").read_text()


@pytest.mark.needs("qemu-arm")
@pytest.mark.parametrize("cpu", OTHER_CORES)
def test_both_emulators_agree(cpu: str, clang: Compiler, images: Path) -> None:
    inputs = pack(inputs_for(mixed(), np.random.default_rng(5), 3))
    counted, second = (run(cpu, clang, images, inputs, engine) for engine in ("unicorn", "qemu"))
    assert np.array_equal(counted.outputs, second.outputs)
    tick = next(machine.tick_ns for machine in MACHINES.values() if machine.cpu == cpu)
    for exact, ticked in zip(counted.instructions, second.instructions, strict=True):
        assert abs(exact - ticked) <= 2 * tick


# ---- profiles ----


@pytest.mark.parametrize("cpu", OTHER_CORES)
def test_a_profile_names_its_board(cpu: str) -> None:
    target = load_target(PROFILES[cpu], [ROOT / "targets"])
    assert target.core is not None and target.memory is not None and target.emulator is not None
    machine = MACHINES[target.emulator.machine]
    origins = target.memory.flash_origin, target.memory.ram_origin
    assert (target.core.cpu, *origins) == (machine.cpu, machine.flash_origin, machine.ram_origin)
    assert "estimate" in target.description


def test_every_core_has_a_board_a_model_and_the_family() -> None:
    assert {machine.cpu for machine in MACHINES.values()} == set(MODELS) == set(DSP_CORES)


@pytest.mark.needs("qemu-arm")
def test_qemu_refuses_a_board_with_another_core(clang: Compiler, tmp_path: Path) -> None:
    target = mcu_target("cortex-m7")
    folder = write_model(tmp_path, "loop")
    build_image(folder, target, clang, folder)
    wrong = replace(target, core=Core("cortex-m33", 100_000_000, True))
    inputs = np.zeros((1, 16), np.uint8)
    with pytest.raises(ConfigError, match="has a cortex-m33, QEMU's mps2-an500 a cortex-m7; correct"):
        run_image(
            folder / "firmware.elf",
            folder / "layers.json",
            wrong,
            inputs,
            engine="qemu",
            counted=1,
            watched=0,
        )


def test_code_is_not_predicted_for_a_core_that_was_not_measured() -> None:
    model = generate(small_net(np.random.default_rng(1)), "portable")
    found = predict(model, "clang", cpu="cortex-m0plus")
    assert (found.code, found.stack, found.flash_bytes) == (None, None, None) and found.arena > 0
    assert found.missing[0].startswith("sizes of code are measured for cortex-m4, cortex-m7, cortex-m33 only")


# ---- instruction sets ----

# what, its code, the cores that have it
SETS = [
    ("lda", ".inst.w 0xe8d00faf", {"cortex-m33"}),
    ("stlexb", ".inst.w 0xe8c21fc3", {"cortex-m33"}),
    ("sg", ".inst.w 0xe97fe97f", {"cortex-m33"}),
    ("vmaxnm", ".inst.w 0xfe800a00", {"cortex-m7", "cortex-m33"}),
    ("vadd.f64", ".inst.w 0xee300b00", set()),
    ("smlad", "smlad r0, r1, r2, r3", set(DSP_CORES)),
]


@pytest.mark.parametrize(("text", "code", "cores"), SETS)
def test_an_image_is_held_to_its_core(
    tmp_path: Path, clang: Compiler, text: str, code: str, cores: set[str]
) -> None:
    extra = f'LAYER static void culprit(void) {{ __asm volatile("{code}" ::: "r0"); }}\n'
    folder = write_model(tmp_path / "model", "loop", extra=extra, prepare="culprit();")
    build_image(folder, mcu_target("cortex-m4"), clang, tmp_path)
    image = read_elf(tmp_path / "firmware.elf")
    for cpu in DSP_CORES:
        core = Core(cpu, 100_000_000, True)
        if cpu in cores:
            check_isa(image, core)
            continue
        with pytest.raises(VerifyError, match=rf"^culprit\+0x\w+: .*{text}.*"):
            check_isa(image, core)


@pytest.mark.needs("unicorn")
def test_the_emulated_core_is_the_one_that_was_asked_for() -> None:
    """LDA exists on an M33 only: what unicorn runs in truth shows."""
    import unicorn
    from unicorn import arm_const as arm
    from unicorn import unicorn_const as uc

    for cpu, (model, _) in MODELS.items():
        emulator = unicorn.Uc(uc.UC_ARCH_ARM, uc.UC_MODE_THUMB)
        emulator.ctl_set_cpu_model(model)
        emulator.mem_map(0, 4096)
        emulator.mem_write(0x100, bytes.fromhex("d0e8af0f00bf"))
        emulator.reg_write(arm.UC_ARM_REG_R0, 0x200)
        if cpu == "cortex-m33":
            emulator.emu_start(0x101, 0x104)
            continue
        with pytest.raises(unicorn.UcError):
            emulator.emu_start(0x101, 0x104)
