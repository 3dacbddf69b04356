/* SPDX-License-Identifier: 0BSD */
/* One generated model as a shared object for Linux: real numbers in, real numbers or the raw integers out.
 *
 * It needs no library, not even libc, so the same file loads under glibc and musl. There is no global state:
 * a caller gives edgekd_state_bytes() bytes, aligned to 8, for each instance, and one thread at a time uses
 * it. Integers are bit for bit those of the microcontroller; the real numbers around them are computed as
 * TFLite's QUANTIZE and DEQUANTIZE do. Inputs are in NHWC. Built with -ffp-contract=off: no fused roundings.
 */
#include "model.h"

#define EXPORTED __attribute__((visibility("default")))

#define VALUES(side) ((int32_t)(MODEL_##side##0_BYTES / sizeof(MODEL_##side##0_TYPE)))
#define LOWEST(type) (((type)-1) < 0 ? -128 : 0)
#define BEYOND 1.0e6f /* farther out than any integer that is not clamped, and far inside int32 */

enum { EDGEKD_DONE = 0, EDGEKD_NOT_A_NUMBER = 1 };

int32_t edgekd_abi(void);
const char *edgekd_digest(void);
uint32_t edgekd_state_bytes(void);
int32_t edgekd_input_values(void);
int32_t edgekd_output_values(void);
void edgekd_init(void *state);
int32_t edgekd_quantize(const float *x, void *q);
void edgekd_run_integers(void *state, const void *q, void *y);
int32_t edgekd_run(void *state, const float *x, float *y);

/* Raised when a function below changes its meaning. */
EXPORTED int32_t edgekd_abi(void) { return 1; }

/* The start of the SHA-256 of the model that the C was generated from, as text. */
EXPORTED const char *edgekd_digest(void) { return MODEL_DIGEST; }

EXPORTED uint32_t edgekd_state_bytes(void) { return (uint32_t)sizeof(model_t); }

EXPORTED int32_t edgekd_input_values(void) { return VALUES(INPUT); }

EXPORTED int32_t edgekd_output_values(void) { return VALUES(OUTPUT); }

EXPORTED void edgekd_init(void *state) { model_init((model_t *)state); }

/* clamp(round half away(x / scale) + zero point) of every input value; EDGEKD_NOT_A_NUMBER for a NaN. */
EXPORTED int32_t edgekd_quantize(const float *x, void *q)
{
    MODEL_INPUT0_TYPE *to = (MODEL_INPUT0_TYPE *)q;

    for (int32_t i = 0; i < VALUES(INPUT); i++) {
        const int32_t lowest = LOWEST(MODEL_INPUT0_TYPE);
        float real = x[i] / MODEL_INPUT0_SCALE;
        float rest;
        int32_t whole;

        if (real != real) {
            return EDGEKD_NOT_A_NUMBER;
        }
        real = real > BEYOND ? BEYOND : real < -BEYOND ? -BEYOND : real;
        whole = (int32_t)real;
        rest = real - (float)whole; /* exact, where adding a half and cutting would not be */
        whole += (rest >= 0.5f) - (rest <= -0.5f) + MODEL_INPUT0_ZERO_POINT;
        to[i] = (MODEL_INPUT0_TYPE)(whole < lowest ? lowest : whole > lowest + 255 ? lowest + 255 : whole);
    }
    return EDGEKD_DONE;
}

/* The model's own integers in and out, MODEL_INPUT0_BYTES and MODEL_OUTPUT0_BYTES. */
EXPORTED void edgekd_run_integers(void *state, const void *q, void *y)
{
    model_t *model = (model_t *)state;

    __builtin_memcpy(model_input(model, 0), q, MODEL_INPUT0_BYTES);
    model_invoke(model);
    __builtin_memcpy(y, model_output(model, 0), MODEL_OUTPUT0_BYTES);
}

/* One inference on real numbers; EDGEKD_NOT_A_NUMBER, and y as it was, where x holds a NaN. */
EXPORTED int32_t edgekd_run(void *state, const float *x, float *y)
{
    model_t *model = (model_t *)state;
    const MODEL_OUTPUT0_TYPE *from;

    if (edgekd_quantize(x, model_input(model, 0)) != EDGEKD_DONE) {
        return EDGEKD_NOT_A_NUMBER;
    }
    model_invoke(model);
    from = (const MODEL_OUTPUT0_TYPE *)model_output(model, 0);
    for (int32_t i = 0; i < VALUES(OUTPUT); i++) {
        y[i] = (float)((double)MODEL_OUTPUT0_SCALE * (double)((int32_t)from[i] - MODEL_OUTPUT0_ZERO_POINT));
    }
    return EDGEKD_DONE;
}
