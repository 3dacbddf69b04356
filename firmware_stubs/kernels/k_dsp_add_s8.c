/* SPDX-License-Identifier: 0BSD */
#include "k_dsp_add_s8.h"

#include "k_dsp.h"

void k_dsp_add_s8(const k_dsp_add_s8_t *layer, const int8_t *a, const int8_t *b, int8_t *y)
{
    for (int32_t i = 0; i < layer->elements; i++) {
        int32_t sum = k_smlaw(layer->a_multiplier, 256 * a[i], layer->constant);
        y[i] = k_ssat8(k_smlaw(layer->b_multiplier, 256 * b[i], sum) >> layer->shift);
    }
}
