/* SPDX-License-Identifier: 0BSD */
#include "k_dsp_winograd_multiply_s8.h"

#include "k_dsp.h"

/* One column of a tile, one output channel: the weights of two channels follow each other. */
static uint32_t column_sum(const uint32_t *x, const uint32_t *w, int32_t channels, uint32_t sum)
{
    for (int32_t i = 0; i < channels; i += 4) {
        sum = k_smlad(x[0], w[0], sum);
        sum = k_smlad(x[1], w[1], sum);
        x += 4;
        w += 4;
    }
    return sum;
}

/* Four times (or more) the sums of one tile and one channel: sums[row][column] of its 2 x 2 outputs. */
static void tile_sums(int32_t channels, const uint32_t *block, const uint32_t *w, uint32_t bias, uint32_t sums[2][2])
{
    for (int32_t row = 0; row < 4; row++) {
        uint32_t first = column_sum(block, w, channels, row == 1 ? bias : 0);
        uint32_t second = column_sum(block + channels, w + channels, channels, 0);
        uint32_t left = column_sum(block + 3 * channels + 4, w + 3 * channels, channels, first + second);
        uint32_t right = column_sum(block + 2 * channels, w + 2 * channels, channels, first - second);
        if (row < 3) {
            sums[0][0] += left;
            sums[0][1] += right;
        }
        if (row > 0) {
            sums[1][0] += row == 2 ? 0u - left : left;
            sums[1][1] += row == 2 ? 0u - right : right;
        }
        block += 4 * channels + 8;
        w += 4 * channels + 2;
    }
}

/* The output of one sum; w: where the pair's roundings begin. */
static int8_t rounded(const k_dsp_winograd_s8_t *layer, const uint32_t *w, int32_t b, uint32_t sum)
{
    if (layer->shift > 0) {
        return k_ssat8(k_smmla((int32_t)sum, (int32_t)w[b], (int32_t)w[2 + b]) >> layer->shift);
    }
    return k_round_twice((uint32_t)((int32_t)sum >> 2), (int32_t)w[b], w[2] >> (8 * b) & 31u, layer->zero);
}

void k_dsp_winograd_multiply_s8(const k_dsp_winograd_s8_t *layer, uint32_t *block, int8_t *y)
{
    int32_t channels = layer->channels;
    int32_t pair_words = 4 * (4 * channels + 2) + (layer->shift > 0 ? 4 : 3);
    const uint32_t *w = layer->weights;

    for (int32_t o = 0; o < layer->outputs; o += 2) {
        for (int32_t i = 0; i < 4; i++) { /* channel i % 2 of the pair, tile i / 2 */
            uint32_t sums[2][2] = {{0, 0}, {0, 0}};
            int32_t b = i % 2;
            int8_t *to = y + o + b + i / 2 * 2 * layer->outputs;
            tile_sums(channels, block + i / 2 * 2, w + 2 + 2 * b, w[4 * channels + 2 + b], sums);
            for (int32_t row = 0; row < 2; row++) {
                to[row * layer->out_row_bytes] = rounded(layer, w + pair_words - (layer->shift > 0 ? 4 : 3), b, sums[row][0]);
                to[row * layer->out_row_bytes + layer->outputs] =
                    rounded(layer, w + pair_words - (layer->shift > 0 ? 4 : 3), b, sums[row][1]);
            }
        }
        w += pair_words;
    }
}
