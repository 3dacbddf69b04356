/* SPDX-License-Identifier: 0BSD */
/* The harness: every sample of "samples.bin" through the model, into "outputs.bin" and "ticks.bin".
 *
 * samples.bin: rows of MODEL_INPUT_BYTES, all inputs in order; outputs.bin: rows of
 * MODEL_OUTPUT_BYTES; ticks.bin: one little-endian uint32 a sample, the board's ticks in model_invoke.
 * Exit status: 0 done, 2 a file cannot be opened, 3 a row is cut off, 4 a row cannot be written. */
#include "board.h"
#include "model.h"
#include "semihosting.h"

#if MODEL_INPUT_COUNT > 4 || MODEL_OUTPUT_COUNT > 4
#error "the harness has tables for four inputs and four outputs"
#endif

static const uint32_t input_bytes[MODEL_INPUT_COUNT] = {
    MODEL_INPUT0_BYTES,
#if MODEL_INPUT_COUNT > 1
    MODEL_INPUT1_BYTES,
#endif
#if MODEL_INPUT_COUNT > 2
    MODEL_INPUT2_BYTES,
#endif
#if MODEL_INPUT_COUNT > 3
    MODEL_INPUT3_BYTES,
#endif
};

static const uint32_t output_bytes[MODEL_OUTPUT_COUNT] = {
    MODEL_OUTPUT0_BYTES,
#if MODEL_OUTPUT_COUNT > 1
    MODEL_OUTPUT1_BYTES,
#endif
#if MODEL_OUTPUT_COUNT > 2
    MODEL_OUTPUT2_BYTES,
#endif
#if MODEL_OUTPUT_COUNT > 3
    MODEL_OUTPUT3_BYTES,
#endif
};

/* Not cleared by start-up: the arena needs no initial value, and the memory watch of an emulator then
 * sees a read of what the model never wrote. */
__attribute__((section(".noinit"))) static model_t model;

enum { DONE = 0, NO_FILE = 2, CUT_OFF = 3, NOT_WRITTEN = 4 };

/* 1: a whole row was read; 0: the file is at its end; -1: the row is cut off. */
static int read_row(int32_t file) {
  for (int i = 0; i < MODEL_INPUT_COUNT; i++) {
    const uint32_t missing = semihosting_read(file, model_input(&model, i), input_bytes[i]);
    if (missing != 0) {
      return i == 0 && missing == input_bytes[i] ? 0 : -1;
    }
  }
  return 1;
}

static int write_row(int32_t file) {
  for (int i = 0; i < MODEL_OUTPUT_COUNT; i++) {
    if (semihosting_write(file, model_output(&model, i), output_bytes[i]) != 0) {
      return -1;
    }
  }
  return 1;
}

int main(void) {
  const int32_t samples = semihosting_open("samples.bin", SEMIHOSTING_READ);
  const int32_t outputs = semihosting_open("outputs.bin", SEMIHOSTING_WRITE);
  const int32_t ticks = semihosting_open("ticks.bin", SEMIHOSTING_WRITE);
  if (samples < 0 || outputs < 0 || ticks < 0) {
    return NO_FILE;
  }
  board_start_clock();
  model_init(&model);
  int row = read_row(samples);
  while (row == 1) {
    const uint32_t before = board_ticks();
    model_invoke(&model);
    const uint32_t spent = board_ticks() - before;
    if (write_row(outputs) < 0 || semihosting_write(ticks, &spent, sizeof spent) != 0) {
      return NOT_WRITTEN;
    }
    row = read_row(samples);
  }
  semihosting_close(ticks);
  semihosting_close(outputs);
  semihosting_close(samples);
  return row == 0 ? DONE : CUT_OFF;
}
