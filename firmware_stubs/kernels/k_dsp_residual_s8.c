/* SPDX-License-Identifier: 0BSD */
#include "k_dsp_residual_s8.h"

void k_dsp_residual_s8_block(const k_dsp_pairs_s8_t *pairs, const uint32_t *block, int8_t *y)
{
    const k_dsp_residual_s8_t *layer = (const k_dsp_residual_s8_t *)(const void *)pairs;
    /* The block is the head of the driver's scratch, which is not constant. */
    int32_t *left = (int32_t *)(uintptr_t)(block + layer->behind_words);
    int8_t *between = (int8_t *)(left + 1);
    const k_dsp_add_s8_t *sum = &layer->sum;

    layer->multiply(pairs, block, between);
    if (*left < 3) { /* the others were computed, and added, before */
        sum = &layer->last;
        between += layer->skip_bytes;
        y += layer->skip_bytes;
    }
    *left -= 3;
    layer->add(sum, between, y, y);
}

void k_dsp_residual_s8(const k_dsp_residual_s8_t *layer, const int8_t *x, int32_t *scratch, int8_t *y)
{
    scratch[layer->behind_words] = layer->conv.pixels;
    layer->run(&layer->conv, x, scratch, y);
}
