/* SPDX-License-Identifier: 0BSD */
#include "k_dsp_depthwise_leaf_s8.h"

#include "k_dsp.h"

/* One output: the sum with its factor, then the high word and one rounding. */
static int8_t output(const k_dsp_depthwise_s8_t *layer, const int8_t *x, int32_t top, int32_t left, const int8_t *w)
{
    uint32_t sum = k_word(w + 10);

    for (int32_t tap = 0; tap < 9; tap++) {
        int32_t row = top + tap / 3;
        int32_t column = left + tap % 3;
        int32_t inside = row >= 0 && row < layer->in_h && column >= 0 && column < layer->in_w;
        int32_t value = inside ? x[4 * (row * layer->in_w + column)] : layer->in_zero_point;
        sum += (uint32_t)(256 * value) * ((uint32_t)(int32_t)w[tap] << w[9]);
    }
    return k_ssat8(k_smmla((int32_t)sum, (int32_t)k_word(w + 14), 0) >> layer->shift);
}

void k_dsp_depthwise_leaf_s8(const k_dsp_depthwise_s8_t *layer, const int8_t *x, int32_t *scratch, int8_t *y,
                             const int8_t *weights)
{
    (void)scratch;
    for (int32_t row = 0; row < layer->out_h; row++) {
        for (int32_t column = 0; column < layer->out_w; column++) {
            for (int32_t channel = 0; channel < 4; channel++) {
                *y++ = output(layer, x + channel, row * layer->stride - layer->pad_top,
                              column * layer->stride - layer->pad_left, weights + 18 * channel);
            }
        }
    }
}
