"""The firmware image: what fills it, what is refused and when, and which instructions it may hold."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from edgekd.errors import ArtifactError, BudgetError, VerifyError
from edgekd.mcu import firmware
from edgekd.mcu.elf import read_elf
from edgekd.mcu.firmware import build_image, memory_use
from edgekd.mcu.isa import aligned_accesses, check_isa, uses_fpu
from edgekd.mcu.toolchain import Compiler
from edgekd.target import Core
from tests.mcu.firmware_models import mcu_target, write_model

pytestmark = pytest.mark.needs("ziglang", "capstone", "pyelftools")

TARGET = mcu_target()


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory, clang: Compiler) -> Path:
    folder = write_model(tmp_path_factory.mktemp("dense"), "dense")
    build_image(folder, TARGET, clang, folder)
    return folder


def test_memory_is_split(dense: Path) -> None:
    record = json.loads((dense / "image.json").read_text())
    flash, ram = record["flash_bytes"], record["ram_bytes"]
    assert flash["weights"] == 8 * 16 + 8 * 4
    assert flash["total"] == flash["weights"] + flash["code"] + flash["constants"]
    assert flash["code"] > 500 and flash["constants"] > 8
    assert ram == {"arena": 64, "static": 0, "stack": 1024, "total": 1088}
    assert record["compiler"].startswith("clang ")
    assert record == {"compiler": record["compiler"], "target": "test-core"} | memory_use(
        read_elf(dense / "firmware.elf")
    )


def test_statics_are_told_from_the_arena(tmp_path: Path, clang: Compiler) -> None:
    extra = "static volatile uint32_t counter[5];\nstatic volatile int32_t start[3] = {1, 2, 3};\n"
    folder = write_model(tmp_path / "model", "dense", extra=extra, prepare="counter[4] = start[2]++;")
    build_image(folder, TARGET, clang, tmp_path)
    use = json.loads((tmp_path / "image.json").read_text())
    assert use["ram_bytes"]["arena"] == 64 and use["ram_bytes"]["static"] >= 32


def test_the_same_sources_give_the_same_bytes(dense: Path, tmp_path: Path, clang: Compiler) -> None:
    folder = write_model(tmp_path / "elsewhere", "dense")
    build_image(folder, TARGET, clang, tmp_path / "out")
    digests = {
        hashlib.sha256((place / "firmware.elf").read_bytes()).hexdigest()
        for place in (dense, tmp_path / "out")
    }
    assert len(digests) == 1
    assert str(tmp_path).encode() not in (tmp_path / "out" / "firmware.elf").read_bytes()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["firmware.elf", "image.json"]


@pytest.mark.needs("gcc-arm")
@pytest.mark.parametrize("fpu", [True, False])
def test_gcc_builds_the_same_layout(tmp_path: Path, gcc: Compiler, fpu: bool) -> None:
    folder = write_model(tmp_path / "model", "dense")
    build_image(folder, mcu_target(fpu=fpu), gcc, tmp_path)
    use = json.loads((tmp_path / "image.json").read_text())
    assert use["flash_bytes"]["weights"] == 160
    assert use["ram_bytes"] == {"arena": 64, "static": 0, "stack": 1024, "total": 1088}


def test_what_cannot_fit_is_refused_before_compiling(
    tmp_path: Path, clang: Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(firmware, "_link", lambda *a: pytest.fail("compiled"))
    extra = "const int16_t model_weights_01[2][3000] = {{1}};\n"
    folder = write_model(tmp_path / "weights", "dense", extra=extra)
    with pytest.raises(BudgetError, match=r"flash: it needs 12,160 bytes for the weights alone.*has 8,192"):
        build_image(folder, mcu_target(flash_bytes=8192), clang, tmp_path / "out")
    folder = write_model(tmp_path / "arena", "dense", arena=8000)
    with pytest.raises(BudgetError, match=r"RAM: it needs 9,024 bytes for arena and stack alone.*has 8,192"):
        build_image(folder, mcu_target(ram_bytes=8192), clang, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_does_not_fit_is_refused_after_linking(tmp_path: Path, clang: Compiler) -> None:
    extra = "static const volatile uint8_t big[5000] = {1};\n"
    folder = write_model(tmp_path / "flash", "dense", extra=extra, prepare="(void)big[3];")
    with pytest.raises(BudgetError, match=r"flash: it needs [78],\d+ bytes for weights, code.*has 6,144"):
        build_image(folder, mcu_target(flash_bytes=6144), clang, tmp_path / "out")
    extra = "static volatile uint8_t big[2000];\n"
    folder = write_model(tmp_path / "ram", "dense", extra=extra, prepare="big[3] = 1;")
    with pytest.raises(BudgetError, match=r"RAM: it needs 3,088 bytes for arena, statics.*has 2,048"):
        build_image(folder, mcu_target(ram_bytes=2048), clang, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_sources_that_do_not_compile(tmp_path: Path, clang: Compiler) -> None:
    folder = write_model(tmp_path / "model", "dense", extra="int broken(void) { return }\n")
    with pytest.raises(ArtifactError, match=r"model\.c"):
        build_image(folder, TARGET, clang, tmp_path / "out")
    with pytest.raises(ArtifactError, match="holds no generated C"):
        build_image(tmp_path, TARGET, clang, tmp_path / "out")


FORBIDDEN = [
    ("lda", ".inst.w 0xe8d10faf", True),
    ("vadd.f64", ".inst.w 0xee310b02", True),
    ("vadd.i32", ".inst.w 0xef220844", True),
    ("vmaxnm.f32", ".inst.w 0xfe800a81", True),
    ("mrc", ".inst.w 0xee110f10", True),
    ("smc", ".inst.w 0xf7f08000", True),
    ("d2e87f01", ".inst.w 0xe8d2017f", True),
    ("vadd.f32", "vadd.f32 s0, s1, s2", False),
]


@pytest.mark.parametrize(("text", "code", "fpu"), FORBIDDEN)
def test_an_instruction_that_the_core_lacks(
    tmp_path: Path, clang: Compiler, text: str, code: str, fpu: bool
) -> None:
    extra = f'LAYER static void culprit(void) {{ __asm volatile("{code}"); }}\n'
    folder = write_model(tmp_path / "model", "loop", extra=extra, prepare="culprit();")
    build_image(folder, TARGET, clang, tmp_path)
    with pytest.raises(VerifyError, match=rf"^culprit\+0x\w+: .*{text}"):
        check_isa(read_elf(tmp_path / "firmware.elf"), Core("cortex-m4", 100_000_000, fpu))


def test_what_the_core_has_passes(tmp_path: Path, clang: Compiler) -> None:
    code = (
        "smlad r0, r1, r2, r3\\nsdiv r0, r1, r2\\nvfma.f32 s0, s1, s2\\nvsqrt.f32 s3, s4\\n"
        "vmov.f32 s0, #1.0\\nvcmp.f32 s0, #0\\nvmrs apsr_nzcv, fpscr\\nvcvt.s32.f32 s0, s1\\n"
        "ldrd r0, r1, [r4, #8]\\nssat r0, #8, r1"
    )
    extra = f'LAYER static void varied(void) {{ __asm volatile("{code}" ::: "r0", "r1", "memory"); }}\n'
    folder = write_model(tmp_path / "model", "loop", extra=extra, prepare="varied();")
    build_image(folder, TARGET, clang, tmp_path)
    image = read_elf(tmp_path / "firmware.elf")
    check_isa(image, Core("cortex-m4", 100_000_000, True))
    assert uses_fpu(image)
    found = [row[1:] for row in aligned_accesses(image) if image.locate(row[0]).startswith("varied+")]
    assert found == [(4, 8)]


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "text"])
def test_a_broken_image_is_refused(dense: Path, tmp_path: Path, damage: str) -> None:
    whole = (dense / "firmware.elf").read_bytes()
    broken = {
        "empty": b"",
        "cut": whole[: len(whole) // 2],
        "flipped": b"\x7fELG" + whole[4:],
        "text": b"not an image" * 100,
    }[damage]
    path = tmp_path / "firmware.elf"
    path.write_bytes(broken)
    with pytest.raises(ArtifactError, match=r"firmware\.elf: "):
        read_elf(path)
    with pytest.raises(ArtifactError, match="cannot be read"):
        read_elf(tmp_path / "absent.elf")


def test_soft_float_image_has_no_float_instruction(tmp_path: Path, clang: Compiler) -> None:
    extra = "static volatile float half = 0.5f;\n"
    folder = write_model(tmp_path / "model", "dense", extra=extra, prepare="half = half * half;")
    build_image(folder, mcu_target(fpu=False), clang, tmp_path)
    image = read_elf(tmp_path / "firmware.elf")
    check_isa(image, Core("cortex-m4", 100_000_000, False))
    assert not uses_fpu(image)
