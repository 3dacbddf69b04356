/* SPDX-License-Identifier: 0BSD */
#include "k_dsp_average_leaf_s8.h"

#include "k_dsp.h"

void k_dsp_average_leaf_s8(const k_dsp_average_s8_t *layer, const int8_t *x, uint32_t *sums)
{
    int32_t total[4] = {0, 0, 0, 0};

    for (int32_t i = 0; i < layer->pixels; i++) {
        for (int32_t channel = 0; channel < 4; channel++) {
            total[channel] += x[channel];
        }
        x += layer->step_bytes;
    }
    sums[0] = k_pair(total[0], total[2]);
    sums[1] = k_pair(total[1], total[3]);
}
