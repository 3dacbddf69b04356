/* SPDX-License-Identifier: 0BSD */
#include "k_dsp_winograd_tiles_s8.h"

#include "k_dsp.h"

void k_dsp_winograd_tiles_s8(const k_dsp_winograd_s8_t *layer, const uint32_t *strip, uint32_t *block)
{
    int32_t channels = layer->channels; /* also the words of one column of two tiles */

    for (int32_t plane = 0; plane < channels; plane++) {
        uint32_t *to = block + plane % 4 * (4 * channels + 8) + plane / 4 * 4;
        for (int32_t i = 0; i < 4; i++) { /* half i % 2 of tile i / 2 */
            const uint32_t *t = strip + i % 2 + 4 * (i / 2);
            to[i] = k_sadd16(t[2], t[4]);
            to[channels + i] = k_ssub16(t[4], t[2]);
            to[2 * channels + i] = k_ssub16(t[2], t[6]);
            to[3 * channels + 4 + i] = k_ssub16(t[0], t[4]);
        }
        strip += 2 * layer->columns;
    }
}
