/* SPDX-License-Identifier: 0BSD */
/* See k_gemm_s8.h. Two rows by two channels share every load; a last single row takes four channels. */
#include "k_gemm_s8.h"

#include "k_common.h"

/* sums[0..1] of the first row, sums[2..3] of the second, for two channels. */
K_NOINLINE static void tile_2x2(const int8_t *x0, const int8_t *w0, const int32_t *bias, int32_t depth, uint32_t *sums)
{
    const int8_t *x1 = x0 + depth;
    const int8_t *w1 = w0 + depth;
    uint32_t a00 = (uint32_t)bias[0];
    uint32_t a01 = (uint32_t)bias[1];
    uint32_t a10 = a00;
    uint32_t a11 = a01;

    K_UNROLL_4
    for (; depth > 0; depth--) {
        int32_t p = *x0++;
        int32_t q = *x1++;
        int32_t u = *w0++;
        int32_t v = *w1++;
        a00 = k_mac(a00, p, u);
        a01 = k_mac(a01, p, v);
        a10 = k_mac(a10, q, u);
        a11 = k_mac(a11, q, v);
    }
    sums[0] = a00;
    sums[1] = a01;
    sums[2] = a10;
    sums[3] = a11;
}

/* sums[0..3] of one row for four channels. */
K_NOINLINE static void tile_1x4(const int8_t *x, const int8_t *w0, const int32_t *bias, int32_t depth, uint32_t *sums)
{
    const int8_t *w1 = w0 + depth;
    const int8_t *w2 = w1 + depth;
    const int8_t *w3 = w2 + depth;
    uint32_t a0 = (uint32_t)bias[0];
    uint32_t a1 = (uint32_t)bias[1];
    uint32_t a2 = (uint32_t)bias[2];
    uint32_t a3 = (uint32_t)bias[3];

    K_UNROLL_4
    for (; depth > 0; depth--) {
        int32_t p = *x++;
        a0 = k_mac(a0, p, *w0++);
        a1 = k_mac(a1, p, *w1++);
        a2 = k_mac(a2, p, *w2++);
        a3 = k_mac(a3, p, *w3++);
    }
    sums[0] = a0;
    sums[1] = a1;
    sums[2] = a2;
    sums[3] = a3;
}

static uint32_t dot(const int8_t *x, const int8_t *w, int32_t bias, int32_t depth)
{
    uint32_t sum = (uint32_t)bias;
    for (int32_t k = 0; k < depth; k++) {
        sum = k_mac(sum, x[k], w[k]);
    }
    return sum;
}

/* Sums of `count` channels from `channel` on become outputs. */
K_NOINLINE static void finish(const k_gemm_s8_t *layer, int32_t channel, const uint32_t *sums, int32_t count, int8_t *y)
{
    for (int32_t i = 0; i < count; i++) {
        int32_t at = (channel + i) * layer->channel_step;
        int32_t scaled = k_requantize((int32_t)sums[i], layer->multiplier[at], layer->shift[at]);
        y[channel + i] = k_clamp(scaled + layer->out_zero_point, layer->lowest, layer->highest);
    }
}

/* The outputs from `channel` on of one row. */
static void one_row(const k_gemm_s8_t *layer, const int8_t *x, int32_t channel, int8_t *y)
{
    const int8_t *w = layer->weights + channel * layer->depth;
    uint32_t sums[4];

    for (; channel + 4 <= layer->outputs; channel += 4) {
        tile_1x4(x, w, layer->bias + channel, layer->depth, sums);
        finish(layer, channel, sums, 4, y);
        w += 4 * layer->depth;
    }
    for (; channel < layer->outputs; channel++) {
        sums[0] = dot(x, w, layer->bias[channel], layer->depth);
        finish(layer, channel, sums, 1, y);
        w += layer->depth;
    }
}

static void two_rows(const k_gemm_s8_t *layer, const int8_t *x, int8_t *y)
{
    const int8_t *w = layer->weights;
    int32_t channel;
    uint32_t sums[4];

    for (channel = 0; channel + 2 <= layer->outputs; channel += 2) {
        tile_2x2(x, w, layer->bias + channel, layer->depth, sums);
        finish(layer, channel, sums, 2, y);
        finish(layer, channel, sums + 2, 2, y + layer->outputs);
        w += 2 * layer->depth;
    }
    if (channel < layer->outputs) {
        one_row(layer, x, channel, y);
        one_row(layer, x + layer->depth, channel, y + layer->outputs);
    }
}

void k_gemm_s8(const k_gemm_s8_t *layer, const int8_t *x, int32_t rows, int8_t *y)
{
    for (; rows >= 2; rows -= 2) {
        two_rows(layer, x, y);
        x += 2 * layer->depth;
        y += 2 * layer->outputs;
    }
    if (rows > 0) {
        one_row(layer, x, 0, y);
    }
}
