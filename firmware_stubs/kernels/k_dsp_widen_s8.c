/* SPDX-License-Identifier: 0BSD */
#include "k_dsp_widen_s8.h"

#include "k_dsp.h"

static void store(uint32_t word, int32_t pixel, uint32_t *block)
{
    block[pixel] = k_sxtb16(word);
    block[3 + pixel] = k_sxtb16(word >> 8);
}

void k_dsp_widen_s8(const k_dsp_widen_s8_t *layer, const int8_t *const *pixels, uint32_t *block)
{
    for (int32_t i = 0; i < 3; i++) {
        const int8_t *x = pixels[i];
        uint32_t *to = block;
        uint32_t rest = 0;
        int32_t held = 0;
        for (int32_t row = 0; row < layer->rows; row++) {
            for (int32_t w = 0; w < layer->words; w++) {
                store(k_word(x + row * layer->step_bytes + 4 * w), i, to);
                to += 6;
            }
        }
        for (int32_t row = 0; row < layer->rows; row++) {
            for (int32_t b = 0; b < layer->leftover; b++) {
                const int8_t *byte = x + row * layer->step_bytes + 4 * layer->words + b;
                rest |= (uint32_t)(uint8_t)*byte << (8 * held);
                if (++held == 4) {
                    store(rest, i, to);
                    to += 6;
                    rest = 0;
                    held = 0;
                }
            }
        }
        if (held > 0) {
            store(rest, i, to);
        }
    }
}
