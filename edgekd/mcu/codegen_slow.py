"""The part of a model's tensors that lies in slow RAM: its type, the first instance's object, its section."""

from __future__ import annotations

from dataclasses import dataclass

from edgekd.mcu.codegen_text import LICENSE

_STATE = """{weights}/* The tensors that are seldom touched, {size_bytes} bytes, for slow RAM: any
 * that is aligned to 8, as the type is. The bytes need no value before. */
typedef union {{
    uint64_t align;
    int32_t words[MODEL_SLOW_BYTES / 4];
    uint8_t bytes[MODEL_SLOW_BYTES];
}} model_slow_t;

/* The state of one instance: tensors and scratch for fast RAM, and where its slow part lies. */
typedef union {{
    uint64_t align;
    int32_t words[(MODEL_ARENA_BYTES + 3) / 4];
    uint8_t bytes[MODEL_ARENA_BYTES];
    struct {{
        uint64_t arena[(MODEL_ARENA_BYTES + 7) / 8];
{pointer}        model_slow_t *slow;
    }} held;
}} model_t;

/* The slow part that model_init gives an instance. model_slow.c defines it in the section {section}, which a
 * linker script places in slow RAM, not loaded; in place of that file a firmware may define it itself. */
extern model_slow_t model_slow;
"""

_PLACE = """
/* Gives an instance a slow part of its own: behind model_init, for every model_t but one in use. */
void model_set_slow(model_t *model, model_slow_t *slow);
"""

_SOURCE = """
/* The slow part of the first instance: see model.h. */
#include "model.h"

#if defined(__GNUC__) && defined(__ELF__)
#define MODEL_SLOW_PLACE __attribute__((section("{section}")))
#else
#define MODEL_SLOW_PLACE
#endif

model_slow_t model_slow MODEL_SLOW_PLACE;

void model_set_slow(model_t *model, model_slow_t *slow)
{{
    model->held.slow = slow;
}}
"""


@dataclass(frozen=True)
class Slow:
    """size_bytes: of the tensors in slow RAM, a multiple of 8; section: the linker's."""

    size_bytes: int
    section: str


def slow_state(slow: Slow, is_updatable: bool) -> str:
    """The types of a build whose tensors lie in two RAMs, for model.h."""
    return _STATE.format(
        size_bytes=slow.size_bytes,
        section=slow.section,
        weights="struct model_weights;\n\n" if is_updatable else "",
        pointer="        const struct model_weights *weights;\n" if is_updatable else "",
    )


def slow_functions() -> str:
    """What model.h declares besides."""
    return _PLACE


def slow_source(slow: Slow) -> str:
    """The text of model_slow.c."""
    return LICENSE + _SOURCE.format(section=slow.section)
