"""model_info.c: names, the profile, and the weights' check and replacement: what a firmware may use or not.

It is a file of its own, one function each, so that a linker leaves out what nobody calls.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from edgekd.mcu.codegen_text import LICENSE, quoted

_SOURCE = """
/* Names, the profile and the weights: see model.h. A linker leaves out what is not called. */
#include "model.h"
#include "model_weights.h"

/* model.h repeats what k_weights.h returns. */
typedef char model_faults_must_agree[
    (int)MODEL_WEIGHTS_UNALIGNED == (int)K_WEIGHTS_UNALIGNED &&
    (int)MODEL_WEIGHTS_FOREIGN == (int)K_WEIGHTS_FOREIGN &&
    (int)MODEL_WEIGHTS_FORMAT_UNKNOWN == (int)K_WEIGHTS_FORMAT_UNKNOWN &&
    (int)MODEL_WEIGHTS_LENGTH == (int)K_WEIGHTS_LENGTH &&
    (int)MODEL_WEIGHTS_DAMAGED == (int)K_WEIGHTS_DAMAGED &&
    (int)MODEL_WEIGHTS_LAYOUT == (int)K_WEIGHTS_LAYOUT &&
    (int)MODEL_WEIGHTS_FIXED == (int)K_WEIGHTS_FIXED ? 1 : -1];

{prototypes}{layer_names}{labels}
void model_profile(model_t *model, model_hook_t *hook, void *context)
{{
{profile}}}
{weights}"""

_NAMES = """
const char *{function}(int index)
{{
    static const char *const names[] = {{
{names}    }};

    return index >= 0 && index < {count} ? names[index] : 0;
}}
"""

_NO_NAMES = """
const char *{function}(int index)
{{
    (void)index;
    return 0;
}}
"""

_FIXED = """
int model_weights_check(const model_t *model)
{
    (void)model;
    return k_weights_check(&model_weights, (uint32_t)sizeof model_weights);
}

int model_set_weights(model_t *model, const void *blob, uint32_t bytes)
{
    (void)model;
    (void)blob;
    (void)bytes;
    return MODEL_WEIGHTS_FIXED;
}
"""

_UPDATABLE = """
int model_weights_check(const model_t *model)
{
    return k_weights_check(model->held.weights, (uint32_t)sizeof model_weights);
}

int model_set_weights(model_t *model, const void *blob, uint32_t bytes)
{
    const model_weights_t *given = (const model_weights_t *)blob;
    int fault = k_weights_check(blob, bytes);

    if (fault != MODEL_WEIGHTS_SOUND) {
        return fault;
    }
    if (given->header.layout[0] != model_weights.header.layout[0] ||
        given->header.layout[1] != model_weights.header.layout[1] || bytes != sizeof model_weights) {
        return MODEL_WEIGHTS_LAYOUT;
    }
    model->held.weights = given;
    return MODEL_WEIGHTS_SOUND;
}
"""


def info_source(
    layers: Sequence[tuple[str, str]], labels: Sequence[str], profile: str, *, is_updatable: bool
) -> str:
    """The text of model_info.c. layers: (name, symbol) of each, in order; profile: the calls, with hooks."""
    unused = "    (void)model;\n    (void)hook;\n    (void)context;\n"
    starts = dict.fromkeys(re.findall(r"\bmodel_start_\d+\b", profile))
    symbols = [*starts, *(symbol for _, symbol in layers)]
    return LICENSE + _SOURCE.format(
        prototypes="".join(f"void {symbol}(model_t *model);\n" for symbol in symbols),
        layer_names=_names("model_layer_name", [name for name, _ in layers]),
        labels=_names("model_label", labels),
        profile=profile or unused,
        weights=_UPDATABLE if is_updatable else _FIXED,
    )


def _names(function: str, names: Sequence[str]) -> str:
    if not names:
        return _NO_NAMES.format(function=function)
    lines = "".join(f"        {quoted(name)},\n" for name in names)
    return _NAMES.format(function=function, names=lines, count=len(names))
