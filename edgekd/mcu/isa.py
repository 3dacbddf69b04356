"""The instruction set a core has: every instruction of an image is held to it before the image runs.

The emulators execute whatever an A-profile core would; only this check keeps an image from a core that
lacks the instruction. Disassembles with capstone, imported late.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from edgekd.errors import ConfigError, MissingDependencyError, VerifyError
from edgekd.mcu.elf import Image
from edgekd.target import Core


def words(text: str) -> frozenset[str]:
    """The names in `text`, blank-separated: a table that a person can read."""
    return frozenset(text.split())


# Armv7E-M (Cortex-M4), by the names capstone gives: Arm DDI 0403, chapter A7.
ARMV7EM = words(
    """
    adc add addw adr and asr b bfc bfi bic bkpt bl blx bx cbnz cbz clrex clz cmn cmp cps csdb dbg dmb dsb
    eor esb hint isb it ldm ldmdb ldr ldrb ldrbt ldrd ldrex ldrexb ldrexh ldrh ldrht ldrsb ldrsbt ldrsh
    ldrsht ldrt lsl lsr mla mls mov movs movt movw mrs msr mul mvn nop orn orr pkhbt pkhtb pld pli pop push
    qadd qadd16 qadd8 qasx qdadd qdsub qsax qsub qsub16 qsub8 rbit rev rev16 revsh ror rrx rsb sadd16 sadd8
    sasx sbc sbfx sdiv sel sev shadd16 shadd8 shasx shsax shsub16 shsub8 smlabb smlabt smlad smladx smlal
    smlalbb smlalbt smlald smlaldx smlaltb smlaltt smlatb smlatt smlawb smlawt smlsd smlsdx smlsld smlsldx
    smmla smmlar smmls smmlsr smmul smmulr smuad smuadx smulbb smulbt smull smultb smultt smulwb smulwt
    smusd smusdx ssat ssat16 ssax ssub16 ssub8 stm stmdb str strb strbt strd strex strexb strexh strh strht
    strt sub subs subw svc sxtab sxtab16 sxtah sxtb sxtb16 sxth tbb tbh teq tst uadd16 uadd8 uasx ubfx udf
    udiv uhadd16 uhadd8 uhasx uhsax uhsub16 uhsub8 umaal umlal umull uqadd16 uqadd8 uqasx uqsax uqsub16
    uqsub8 usad8 usada8 usat usat16 usax usub16 usub8 uxtab uxtab16 uxtah uxtb uxtb16 uxth wfe wfi yield
    """
)

# What Armv8-M mainline with DSP (Cortex-M33) adds: acquire and release, security (Arm DDI 0553, part C).
ARMV8M_MAINLINE = ARMV7EM | words(
    """
    bxns blxns lda ldab ldah ldaex ldaexb ldaexh sg stl stlb stlh stlex stlexb stlexh tt tta ttat ttt
    """
)

# FPv4-SP: single precision; double registers only move. Which operand sizes, `_is_single` holds.
FPV4_MOVES = words(
    "fconsts fldmdbx fldmiax fmdhr fmdlr fmrdh fmrdl fmstat fstmdbx fstmiax vldm vldmdb vldmia vldr vmov "
    "vmrs vmsr vpop vpush vstm vstmdb vstmia vstr"
)
FPV4_ARITHMETIC = words(
    "vabs vadd vcmp vcmpe vcvt vcvtb vcvtr vcvtt vdiv vfma vfms vfnma vfnms vmla vmls vmul vneg vnmla "
    "vnmls vnmul vsqrt vsub"
)

# Of the FPv5 of M7 and M33, single precision.
FPV5 = words("vcvta vcvtm vcvtn vcvtp vmaxnm vminnm vrinta vrintm vrintn vrintp vrintr vrintx vrintz vsel")

INSTRUCTION_SETS = {"cortex-m4": ARMV7EM, "cortex-m7": ARMV7EM, "cortex-m33": ARMV8M_MAINLINE}
FPV5_CORES = ("cortex-m7", "cortex-m33")

# Loads and stores of several words, and those of the FPU, fault on an unaligned word address.
WORD_ALIGNED = words(
    "ldrd strd ldm ldmdb stm stmdb ldrex strex vldr vstr vldm vldmdb vldmia vstm vstmdb vstmia "
    "fldmiax fldmdbx fstmiax fstmdbx"
)


@dataclass(frozen=True)
class Instruction:
    """One decoded instruction: `name` without condition and width, `text` as an assembler writes it."""

    address: int
    size_bytes: int
    name: str
    text: str
    raw: Any


def disassembler() -> Any:
    """Capstone for Thumb, M profile, with operand details."""
    try:
        import capstone
    except ImportError:
        raise MissingDependencyError(
            "firmware is disassembled with capstone; install it: pip install capstone"
        ) from None
    engine = capstone.Cs(capstone.CS_ARCH_ARM, capstone.CS_MODE_THUMB | capstone.CS_MODE_MCLASS)
    engine.detail = True
    return engine


def decode(engine: Any, data: bytes, address: int) -> Iterator[Instruction]:
    """The instructions of `data`, in order; ends at the first that capstone cannot decode."""
    for raw in engine.disasm(data, address):
        yield Instruction(raw.address, raw.size, raw.insn_name(), f"{raw.mnemonic} {raw.op_str}".strip(), raw)


def instructions(image: Image) -> Iterator[Instruction]:
    """Every instruction of the image's code, literal pools left out; VerifyError at an undecodable one."""
    engine = disassembler()
    for section in image.sections.values():
        if section.executable and section.data:
            for start, end in _code_ranges(image, section.address, section.address + section.size_bytes):
                offset = start - section.address
                yield from _decode_all(engine, section.data[offset : offset + end - start], start, image)


def check_isa(image: Image, core: Core) -> None:
    """Raises VerifyError naming function and instruction where `image` holds what `core` lacks."""
    allowed = INSTRUCTION_SETS.get(core.cpu)
    if allowed is None:
        raise ConfigError(
            f"core {core.cpu!r} has no instruction set in edgekd; known: {', '.join(INSTRUCTION_SETS)}"
        )
    floating = FPV4_MOVES | FPV4_ARITHMETIC | (FPV5 if core.cpu in FPV5_CORES else frozenset())
    for instruction in instructions(image):
        if instruction.name in allowed:
            continue
        if instruction.name not in floating or not _is_single(instruction):
            raise _lacking(image, instruction, core)
        if not core.fpu:
            raise VerifyError(
                f"{image.locate(instruction.address)}: the float instruction {instruction.text!r} is in an "
                f"image for a core without FPU; compile with -mfloat-abi=soft or set core.fpu"
            )


def aligned_accesses(image: Image) -> list[tuple[int, int, int]]:
    """(address, base register number, offset in bytes) of each instruction that wants a word-aligned address.

    Those with sp (always aligned) and pc (the assembler aligns literals) as base are left out.
    """
    found = []
    for instruction in instructions(image):
        if instruction.name in WORD_ALIGNED:
            base, offset = _base(instruction)
            if base < 13:
                found.append((instruction.address, base, offset))
    return found


def _lacking(image: Image, instruction: Instruction, core: Core) -> VerifyError:
    where = image.locate(instruction.address)
    return VerifyError(
        f"{where}: the instruction {instruction.text!r} does not exist on a {core.cpu}; compile for that core"
    )


def _code_ranges(image: Image, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The stretches of [start, end) that hold instructions, by the assembler's $t and $d marks."""
    marks = [mark for mark in image.code_marks if start <= mark[0] < end]
    for index, (address, is_code) in enumerate(marks):
        stop = marks[index + 1][0] if index + 1 < len(marks) else end
        if is_code and stop > address:
            yield address, stop


def _decode_all(engine: Any, data: bytes, address: int, image: Image) -> Iterator[Instruction]:
    position = 0
    while position < len(data):
        for instruction in decode(engine, data[position:], address + position):
            yield instruction
            position = instruction.address + instruction.size_bytes - address
        if position < len(data):
            if not any(data[position : position + 4]) and len(data) - position <= 4:
                return  # the linker's fill between functions
            where = image.locate(address + position)
            raise VerifyError(
                f"{where}: the bytes {data[position : position + 4].hex()} are no Thumb instruction of this "
                f"core; compile for that core"
            )


def _is_single(instruction: Instruction) -> bool:
    """FPv4-SP has it: no 128-bit register, no double arithmetic, no vector of integers or floats."""
    kinds = instruction.raw.mnemonic.split(".")[1:]
    registers = [text.strip() for text in instruction.raw.op_str.replace("{", "").replace("}", "").split(",")]
    if any(register.startswith("q") and register[1:2].isdigit() for register in registers):
        return False
    if instruction.name in FPV4_MOVES:
        return all(kind in ("32", "f32", "w") for kind in kinds) and not (
            "f32" in kinds and any(r.startswith("d") and r[1:2].isdigit() for r in registers)
        )
    doubles = any(register.startswith("d") and register[1:2].isdigit() for register in registers)
    return not doubles and all(kind in ("f32", "f16", "s32", "u32", "s16", "u16") for kind in kinds)


def _base(instruction: Instruction) -> tuple[int, int]:
    """The base register's number and the constant offset of the first address."""
    import capstone.arm as arm

    numbers = {getattr(arm, f"ARM_REG_R{n}"): n for n in range(13)}
    for operand in instruction.raw.operands:
        if operand.type == arm.ARM_OP_MEM:
            writeback_after = instruction.raw.post_index if hasattr(instruction.raw, "post_index") else False
            return numbers.get(operand.mem.base, 15), 0 if writeback_after else int(operand.mem.disp)
    return numbers.get(instruction.raw.operands[0].reg, 15), 0


def uses_fpu(image: Image) -> bool:
    """Whether any instruction needs the FPU to be enabled."""
    floating = FPV4_MOVES | FPV4_ARITHMETIC | FPV5
    return any(instruction.name in floating for instruction in instructions(image))
