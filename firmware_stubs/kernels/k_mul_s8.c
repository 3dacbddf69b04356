/* SPDX-License-Identifier: 0BSD */
/* See k_mul_s8.h. */
#include "k_mul_s8.h"

#include "k_common.h"

/* The innermost axis. */
static int8_t *run(const k_mul_s8_t *layer, const int8_t *a, const int8_t *b, int8_t *y)
{
    int32_t a_step = layer->shape.a_step[3];
    int32_t b_step = layer->shape.b_step[3];

    for (int32_t i = 0; i < layer->shape.extent[3]; i++) {
        int32_t product = (a[i * a_step] - layer->a_zero_point) * (b[i * b_step] - layer->b_zero_point);
        int32_t scaled = k_requantize(product, layer->multiplier, layer->shift);
        *y++ = k_clamp(scaled + layer->out_zero_point, layer->lowest, layer->highest);
    }
    return y;
}

void k_mul_s8(const k_mul_s8_t *layer, const int8_t *a, const int8_t *b, int8_t *y)
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
