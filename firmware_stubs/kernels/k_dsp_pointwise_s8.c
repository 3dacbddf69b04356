/* SPDX-License-Identifier: 0BSD */
#include "k_dsp_pointwise_s8.h"

void k_dsp_pointwise_s8(const k_dsp_conv_s8_t *layer, const int8_t *x, int32_t *scratch, int8_t *y)
{
    uint32_t *block = (uint32_t *)(void *)scratch;
    int32_t in_step = layer->step_bytes;
    int32_t out_step = k_dsp_pairs_s8_pixel_bytes(&layer->pairs);

    for (int32_t left = layer->pixels; left > 0; left -= 3) {
        const int8_t *pixels[3];
        if (left < 3) { /* the last block begins earlier and computes some pixels again */
            x -= (3 - left) * in_step;
            y -= (3 - left) * out_step;
        }
        pixels[0] = x;
        pixels[1] = x + in_step;
        pixels[2] = x + 2 * in_step;
        layer->gather(&layer->widen, pixels, block);
        layer->multiply(&layer->pairs, block, y);
        x += 3 * in_step;
        y += 3 * out_step;
    }
}
