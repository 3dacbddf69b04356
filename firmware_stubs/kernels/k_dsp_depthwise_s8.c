/* SPDX-License-Identifier: 0BSD */
#include "k_dsp_depthwise_s8.h"

#include "k_dsp.h"

#define CHANNEL_BYTES 18
#define WEIGHT_WORDS 14

/* The zero point where the image ends: a row of it, and the columns beside the image. */
static void fill_padding(const k_dsp_depthwise_s8_t *layer, int32_t *scratch)
{
    int32_t byte = layer->in_zero_point;
    int32_t pair = (int32_t)k_pair(256 * byte, 256 * byte);
    int32_t *columns = scratch + layer->in_w;

    K_ROLLED
    for (int32_t i = 0; i < layer->in_w; i++) {
        scratch[i] = (int32_t)((uint32_t)(uint8_t)(int8_t)byte * 0x01010101u);
    }
    K_ROLLED
    for (int32_t channel = 0; channel < 4; channel++) {
        columns += WEIGHT_WORDS;
        K_ROLLED
        for (int32_t i = 0; i < layer->columns; i++) {
            if (i < layer->pad_left || i >= layer->pad_left + layer->read) {
                columns[0] = pair;
                columns[1] = pair;
            }
            columns += 2;
        }
    }
}

void k_dsp_depthwise_s8(const k_dsp_depthwise_s8_t *layer, const int8_t *x, int32_t *scratch, int8_t *y)
{
    const int8_t *weights = layer->weights;

    fill_padding(layer, scratch);
    for (int32_t channel = 0; channel < layer->channels; channel += 4) {
        (weights[9] < 0 ? layer->plain : layer->leaf)(layer, x, scratch, y, weights);
        weights += 4 * CHANNEL_BYTES;
        x += 4 * layer->in_h * layer->in_w;
        y += 4 * layer->out_h * layer->out_w;
    }
}
