"""Figures for model.h that only the finished text can tell: flash and stack, predicted for each compiler."""

from __future__ import annotations

from dataclasses import replace

from edgekd.mcu.codegen import GeneratedModel
from edgekd.mcu.footprint import compilers, load_table, predict

_MARK = "LAYER_COUNT "


def with_sizes(model: GeneratedModel, plain: GeneratedModel) -> GeneratedModel:
    """`model` with a comment and a macro in its header; as it is where nothing is known.

    plain: the same model under the prefix "model", which the prediction knows.
    """
    found = {version: predict(plain, kind) for kind, version in compilers(load_table()).items()}
    known = {version: sizes for version, sizes in found.items() if sizes.stack is not None}
    if not known:
        return model
    prefix = model.library.prefix
    name, upper = f"{prefix}.h", prefix.upper()
    core = load_table()["core"]
    lines = "".join(
        f" * {version}: {sizes.code:,} of code, {sizes.constants:,} of constants beside the weights, "
        f"{sizes.stack:,} of stack\n"
        for version, sizes in sorted(known.items())
    )
    text = (
        f"/* Bytes at most on a {core} at -O2, from edgekd's table of kernel sizes, in an image\n"
        f" * that does nothing else (its start-up is counted in):\n{lines} */\n"
        f"#define {upper}_STACK_BYTES {max(sizes.stack or 0 for sizes in known.values())}\n\n"
    )
    mark = f"#define {upper}_{_MARK}"
    return replace(model, files=model.files | {name: model.files[name].replace(mark, text + mark, 1)})
