"""Small hand-written models under the contract of the generated C, for the tests of image and engines."""

from __future__ import annotations

import json
from pathlib import Path

from edgekd.mcu.machines import MACHINES
from edgekd.target import Core, CostModel, Emulator, Memory, Target

HEADER = """
#ifndef MODEL_H
#define MODEL_H
#include <stdint.h>
#define MODEL_INPUT_COUNT 1
#define MODEL_OUTPUT_COUNT 1
#define MODEL_INPUT_BYTES {inputs}
#define MODEL_OUTPUT_BYTES {outputs}
#define MODEL_INPUT0_BYTES {inputs}
#define MODEL_OUTPUT0_BYTES {outputs}
#define MODEL_ARENA_BYTES {arena}
typedef union {{ uint64_t align; uint8_t bytes[MODEL_ARENA_BYTES]; }} model_t;
void model_init(model_t *model);
void *model_input(model_t *model, int index);
const void *model_output(const model_t *model, int index);
void model_invoke(model_t *model);
#endif
"""

ENDS = """
#include "model.h"
#define LAYER __attribute__((noinline))
EXTRA
void model_init(model_t *model) {
  (void)model;
  PREPARE
}
void *model_input(model_t *model, int index) { (void)index; return model->bytes; }
const void *model_output(const model_t *model, int index) {
  (void)index;
  return model->bytes + MODEL_INPUT_BYTES;
}
"""

# 3 + 605 instructions: see test_emulator.test_counts_are_exact.
LOOP = """
__attribute__((naked)) void model_layer_00_loop(model_t *model __attribute__((unused))) {
  __asm volatile(".syntax unified\\n"
                 "movs r2, #100\\n"
                 "movs r3, #0\\n"
                 "1: cmp r2, #50\\n"
                 "ite lt\\n"
                 "addlt r3, r3, #1\\n"
                 "addge r3, r3, #2\\n"
                 "subs r2, #1\\n"
                 "bne 1b\\n"
                 "str r3, [r0, #16]\\n"
                 "str r3, [r0, #20]\\n"
                 "bx lr\\n");
}
__attribute__((naked)) void model_invoke(model_t *model __attribute__((unused))) {
  __asm volatile("push {r4, lr}\\n"
                 "bl model_layer_00_loop\\n"
                 "pop {r4, pc}\\n");
}
"""

# Two layers that share a kernel with a 64-bit division; every input byte matters.
DENSE = """
static const int8_t model_weights_00[8][16] = {
  {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}, {-1, 3, -5, 7, 2}, {4, 4, 4, 4}, {127, -127, 1},
  {9, 8, 7, 6, 5, 4, 3, 2, 1}, {0, 0, 0, 1}, {5}, {-7, -7, -7, -7, -7, -7, -7, -7},
};
static const int32_t model_weights_00_bias[8] = {1, 2, 3, -400, 5, 6, 7, 8};
static const uint8_t table[8] = {0, 1, 2, 3, 5, 8, 13, 21};
LAYER static int32_t divide(int64_t a, int64_t b) { return (int32_t)(a / b); }
LAYER static void model_layer_00_fully_connected(model_t *model) {
  const int8_t *x = (const int8_t *)model->bytes;
  int8_t *y = (int8_t *)model->bytes + 16;
  for (int o = 0; o < 8; o++) {
    int32_t acc = model_weights_00_bias[o];
    for (int i = 0; i < 16; i++) acc += x[i] * model_weights_00[o][i];
    y[o] = (int8_t)divide((int64_t)acc * 1234567891, 1LL << 36);
  }
}
LAYER static void model_layer_01_softmax(model_t *model) {
  uint8_t *y = model->bytes + 16;
  int32_t sum = 1;
  for (int o = 0; o < 8; o++) sum += y[o];
  for (int round = 0; round < ROUNDS; round++)
    for (int o = 0; o < 8; o++) y[o] = (uint8_t)(divide(y[o] * 100000000000LL, sum) + table[y[o] & 7]);
}
void model_invoke(model_t *model) {
  model_layer_00_fully_connected(model);
  model_layer_01_softmax(model);
}
"""

# The first input byte chooses what goes wrong; 0 is fine. Each culprit has a name of its own.
FAULTS = """
static const uint8_t constants[16] = {1, 2, 3};
static volatile uint8_t *escape(const void *p) {
  __asm volatile("" : "+r"(p));
  return (volatile uint8_t *)(uintptr_t)p;
}
LAYER static void unwritten_read(uint8_t *x) { x[16] = escape(x)[40]; }
LAYER static void near_read(uint8_t *x) { x[16] = escape(x)[MODEL_ARENA_BYTES + 4]; }
LAYER static void near_write(uint8_t *x) { escape(x)[MODEL_ARENA_BYTES] = 1; }
LAYER static void far_read(uint8_t *x) { x[16] = *escape((void *)0x30000000u); }
LAYER static void far_write(uint8_t *x) { (void)x; *escape((void *)0x10000000u) = 1; }
LAYER static void odd_pair(uint8_t *x) {
  __asm volatile("ldrd r2, r3, [%0, #4]" ::"r"(x + 2) : "r2", "r3", "memory");
}
LAYER static void odd_multiple(uint8_t *x) {
  __asm volatile("ldm %0, {r2, r3}" ::"r"(x + 1) : "r2", "r3", "memory");
}
LAYER static void odd_float(uint8_t *x) { __asm volatile("vldr s0, [%0, #4]" ::"r"(x + 2) : "s0", "memory"); }
LAYER static void flash_write(uint8_t *x) { (void)x; *escape(constants) = 1; }
LAYER static void endless(uint8_t *x) { while (*escape(x) != 0) { } }
LAYER static uint32_t deeper(uint8_t *x, uint32_t n) {
  volatile uint32_t room[16];
  room[n & 15] = n;
  return *escape(x) ? deeper(x, n + 1) + room[n & 15] : n;
}
LAYER static void undefined(uint8_t *x) { (void)x; __asm volatile("udf #1"); }
LAYER static void wild_jump(uint8_t *x) {
  (void)x;
  ((void (*)(void))(uintptr_t)(escape((void *)0x20000401u)))();
}
LAYER static void model_layer_00_fault(model_t *model) {
  uint8_t *x = model->bytes;
  if (x[0] != 10) for (int i = 0; i < MODEL_OUTPUT_BYTES; i++) x[MODEL_INPUT_BYTES + i] = x[i];
  switch (x[0]) {
    case 1: unwritten_read(x); break;
    case 2: near_read(x); break;
    case 3: near_write(x); break;
    case 4: far_read(x); break;
    case 5: odd_pair(x); break;
    case 6: flash_write(x); break;
    case 7: endless(x); break;
    case 8: x[16] = (uint8_t)deeper(x, 0); break;
    case 9: undefined(x); break;
    case 11: wild_jump(x); break;
    case 12: odd_multiple(x); break;
    case 13: odd_float(x); break;
    case 14: far_write(x); break;
    default: break;
  }
}
void model_invoke(model_t *model) { model_layer_00_fault(model); }
"""

LAYERS = {
    "loop": [("loop", "LOOP", "model_layer_00_loop", 0)],
    "dense": [
        ("fc", "FULLY_CONNECTED", "model_layer_00_fully_connected", 128),
        ("softmax", "SOFTMAX", "model_layer_01_softmax", 0),
    ],
    "faults": [("fault", "FAULT", "model_layer_00_fault", 0)],
}
BODIES = {"loop": LOOP, "dense": DENSE, "faults": FAULTS}


def write_model(
    folder: Path,
    name: str,
    *,
    extra: str = "",
    prepare: str = "",
    inputs: int = 16,
    outputs: int = 8,
    arena: int = 64,
    rounds: int = 1,
) -> Path:
    """The model `name` as generated C in `folder`; `extra` is C before it, `prepare` runs in model_init."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.h").write_text(HEADER.format(inputs=inputs, outputs=outputs, arena=arena))
    body = BODIES[name].replace("ROUNDS", str(rounds))
    (folder / "model.c").write_text(ENDS.replace("EXTRA", extra).replace("PREPARE", prepare) + body)
    rows = [dict(zip(("name", "op", "symbol", "macs"), row, strict=True)) for row in LAYERS[name]]
    (folder / "layers.json").write_text(json.dumps(rows))
    return folder


def mcu_target(
    cpu: str = "cortex-m4",
    *,
    fpu: bool = True,
    flash_bytes: int = 1 << 20,
    ram_bytes: int = 1 << 18,
    stack_bytes: int = 1024,
) -> Target:
    """A core with the link map of its board among MACHINES."""
    name, machine = next((name, machine) for name, machine in MACHINES.items() if machine.cpu == cpu)
    return Target(
        name="test-core",
        description="",
        kind="mcu",
        core=Core(cpu, 100_000_000, fpu),
        memory=Memory(flash_bytes, ram_bytes, machine.flash_origin, machine.ram_origin, stack_bytes),
        emulator=Emulator(machine=name),
        cost=CostModel(),
    )
