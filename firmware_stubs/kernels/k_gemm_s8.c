/* SPDX-License-Identifier: 0BSD */
/* See k_gemm_s8.h. */
#include "k_gemm_s8.h"

#include "k_common.h"

/* sums[0..3] of four outputs over packed words. */
K_NOINLINE static void tile_words(const int32_t *words, const int8_t *w, int32_t depth, int64_t *sums)
{
    int64_t a0 = 0;
    int64_t a1 = 0;
    int64_t a2 = 0;
    int64_t a3 = 0;

    K_UNROLL_4
    for (; depth > 0; depth--) {
        int32_t value = *words++;
        a0 += (int64_t)value * w[0];
        a1 += (int64_t)value * w[1];
        a2 += (int64_t)value * w[2];
        a3 += (int64_t)value * w[3];
        w += 4;
    }
    sums[0] = a0;
    sums[1] = a1;
    sums[2] = a2;
    sums[3] = a3;
}

/* sums[0..3] of four outputs over one row of bytes. */
K_NOINLINE static void tile_row(const int8_t *x, const int8_t *w, int32_t depth, int64_t *sums)
{
    uint32_t a0 = 0;
    uint32_t a1 = 0;
    uint32_t a2 = 0;
    uint32_t a3 = 0;

    K_UNROLL_4
    for (; depth > 0; depth--) {
        int32_t value = *x++;
        a0 = k_mac(a0, value, w[0]);
        a1 = k_mac(a1, value, w[1]);
        a2 = k_mac(a2, value, w[2]);
        a3 = k_mac(a3, value, w[3]);
        w += 4;
    }
    sums[0] = (int64_t)a0;
    sums[1] = (int64_t)a1;
    sums[2] = (int64_t)a2;
    sums[3] = (int64_t)a3;
}

/* `count` outputs from `channel` on, of one or two rows. sums hold one row, or two as words do: the lower
 * 23 bits are the first row's sum. Fields are copied: y may point anywhere, as far as a compiler knows. */
K_NOINLINE static void finish(
    const k_gemm_s8_t *layer, int32_t channel, const int64_t *sums, int32_t count, int32_t rows, int8_t *y)
{
    int32_t step = layer->channel_step;
    const int32_t *multiplier = layer->multiplier + channel * step;
    const int8_t *shift = layer->shift + channel * step;
    const int32_t *bias = layer->bias + channel;
    int32_t zero_point = layer->out_zero_point;
    int32_t lowest = layer->lowest;
    int32_t highest = layer->highest;
    int32_t next_row = layer->outputs;

    y += channel;
    for (; count > 0; count--) {
        int32_t first = (int32_t)(uint32_t)((uint64_t)*sums & 0xFFFFFFFFU);
        if (rows == 2) {
            first = (int32_t)((uint32_t)first << 9) >> 9;
            int32_t second = (int32_t)((uint32_t)((uint64_t)(*sums - first) >> 23 & 0xFFFFFFFFU) + (uint32_t)*bias);
            second = k_requantize(second, *multiplier, *shift);
            y[next_row] = k_clamp(second + zero_point, lowest, highest);
        }
        first = k_requantize((int32_t)((uint32_t)first + (uint32_t)*bias), *multiplier, *shift);
        *y++ = k_clamp(first + zero_point, lowest, highest);
        sums++;
        bias++;
        multiplier += step;
        shift += step;
    }
}

void k_gemm_words_s8(const k_gemm_s8_t *layer, const int32_t *words, int32_t rows, int8_t *y)
{
    const int8_t *w = layer->weights;
    int32_t channel;
    int64_t sums[4];

    for (channel = 0; channel + 4 <= layer->outputs; channel += 4) {
        tile_words(words, w, layer->depth, sums);
        finish(layer, channel, sums, 4, rows, y);
        w += 4 * layer->depth;
    }
    for (; channel < layer->outputs; channel++) {
        sums[0] = 0;
        for (int32_t k = 0; k < layer->depth; k++) {
            sums[0] += (int64_t)words[k] * w[k];
        }
        finish(layer, channel, sums, 1, rows, y);
        w += layer->depth;
    }
}

static void one_row(const k_gemm_s8_t *layer, const int8_t *x, int8_t *y)
{
    const int8_t *w = layer->weights;
    int32_t channel;
    int64_t sums[4];

    for (channel = 0; channel + 4 <= layer->outputs; channel += 4) {
        tile_row(x, w, layer->depth, sums);
        finish(layer, channel, sums, 4, 1, y);
        w += 4 * layer->depth;
    }
    for (; channel < layer->outputs; channel++) {
        uint32_t sum = 0;
        for (int32_t k = 0; k < layer->depth; k++) {
            sum = k_mac(sum, x[k], w[k]);
        }
        sums[0] = (int64_t)sum;
        finish(layer, channel, sums, 1, 1, y);
        w += layer->depth;
    }
}

void k_gemm_s8(const k_gemm_s8_t *layer, const int8_t *x, int32_t rows, int32_t *words, int8_t *y)
{
    if (layer->paired != 0) {
        for (; rows >= 2; rows -= 2) {
            for (int32_t k = 0; k < layer->depth; k++) {
                words[k] = x[k] + x[layer->depth + k] * K_GEMM_SECOND;
            }
            k_gemm_words_s8(layer, words, 2, y);
            x += 2 * layer->depth;
            y += 2 * layer->outputs;
        }
    }
    for (; rows > 0; rows--) {
        one_row(layer, x, y);
        x += layer->depth;
        y += layer->outputs;
    }
}
