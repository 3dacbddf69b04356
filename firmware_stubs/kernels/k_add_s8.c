/* SPDX-License-Identifier: 0BSD */
/* See k_add_s8.h. */
#include "k_add_s8.h"

#include "k_common.h"

#define LEFT_SHIFT 20

static int8_t add(const k_add_s8_t *layer, int32_t a, int32_t b)
{
    a = (a - layer->a_zero_point) * (1 << LEFT_SHIFT);
    b = (b - layer->b_zero_point) * (1 << LEFT_SHIFT);
    a = k_requantize(a, layer->a_multiplier, layer->a_shift);
    b = k_requantize(b, layer->b_multiplier, layer->b_shift);
    a = k_requantize(layer->subtract != 0 ? a - b : a + b, layer->out_multiplier, layer->out_shift);
    return k_clamp(a + layer->out_zero_point, layer->lowest, layer->highest);
}

/* The innermost axis. */
static int8_t *run(const k_add_s8_t *layer, const int8_t *a, const int8_t *b, int8_t *y)
{
    int32_t a_step = layer->shape.a_step[3];
    int32_t b_step = layer->shape.b_step[3];

    for (int32_t i = 0; i < layer->shape.extent[3]; i++) {
        *y++ = add(layer, a[i * a_step], b[i * b_step]);
    }
    return y;
}

void k_add_s8(const k_add_s8_t *layer, const int8_t *a, const int8_t *b, int8_t *y)
{
    const int32_t *extent = layer->shape.extent;
    const int32_t *a_step = layer->shape.a_step;
    const int32_t *b_step = layer->shape.b_step;

    for (int32_t i = 0; i < extent[0]; i++) {
        for (int32_t j = 0; j < extent[1]; j++) {
            for (int32_t k = 0; k < extent[2]; k++) {
                const int8_t *a_run = a + i * a_step[0] + j * a_step[1] + k * a_step[2];
                const int8_t *b_run = b + i * b_step[0] + j * b_step[1] + k * b_step[2];
                y = run(layer, a_run, b_run, y);
            }
        }
    }
}
