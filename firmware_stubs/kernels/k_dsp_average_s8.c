/* SPDX-License-Identifier: 0BSD */
#include "k_dsp_average_s8.h"

#include "k_dsp.h"

/* The mean to nearest, ties away from zero. */
static int8_t mean(int32_t sum, int32_t count)
{
    return (int8_t)((sum < 0 ? sum - count / 2 : sum + count / 2) / count);
}

void k_dsp_average_s8(const k_dsp_average_s8_t *layer, const int8_t *x, int8_t *y)
{
    for (int32_t channel = 0; channel < layer->channels; channel += 4) {
        uint32_t sums[2];
        layer->leaf(layer, x, sums);
        y[0] = mean(k_low(sums[0]), layer->pixels);
        y[1] = mean(k_low(sums[1]), layer->pixels);
        y[2] = mean(k_high(sums[0]), layer->pixels);
        y[3] = mean(k_high(sums[1]), layer->pixels);
        x += layer->four_bytes;
        y += 4;
    }
}
