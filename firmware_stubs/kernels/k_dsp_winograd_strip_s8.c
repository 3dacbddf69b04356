/* SPDX-License-Identifier: 0BSD */
#include "k_dsp_winograd_strip_s8.h"

#include "k_dsp.h"

void k_dsp_winograd_strip_s8(const k_dsp_winograd_s8_t *layer, const int8_t *const *rows, uint32_t *strip)
{
    int32_t row_words = 2 * layer->columns;

    for (int32_t channel = 0; channel < layer->channels; channel += 4) {
        for (int32_t column = 0; column < layer->read; column++) {
            for (int32_t half = 0; half < 2; half++) {
                uint32_t d[4];
                uint32_t *to = strip + channel * row_words + 2 * column + half;
                for (int32_t i = 0; i < 4; i++) {
                    d[i] = k_sxtb16(k_word(rows[i] + column * layer->channels + channel) >> (8 * half));
                }
                to[0] = k_ssub16(d[0], d[2]);
                to[row_words] = k_sadd16(d[1], d[2]);
                to[2 * row_words] = k_ssub16(d[2], d[1]);
                to[3 * row_words] = k_ssub16(d[1], d[3]);
            }
        }
    }
}
