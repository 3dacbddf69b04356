/* SPDX-License-Identifier: 0BSD */
/* See k_mean_s8.h. */
#include "k_mean_s8.h"

#include "k_common.h"

void k_mean_s8(const k_mean_s8_t *layer, const int8_t *x, int8_t *y)
{
    for (int32_t channel = 0; channel < layer->channels; channel++) {
        int32_t sum = -layer->pixels * layer->in_zero_point;
        for (int32_t pixel = 0; pixel < layer->pixels; pixel++) {
            sum += x[pixel * layer->channels + channel];
        }
        sum = k_requantize(sum, layer->multiplier, layer->shift);
        y[channel] = k_clamp(sum + layer->out_zero_point, -128, 127);
    }
}
