/* SPDX-License-Identifier: 0BSD */
#include "k_dsp_pairs_s8.h"

#include "k_dsp.h"

/* One output of each channel of a pair: `first` is A, `raw` is A + 256 * B. */
static void finish(const k_dsp_pairs_s8_t *layer, const uint32_t *w, uint32_t first, uint32_t raw, int8_t *y)
{
    uint32_t second = raw - first; /* 256 * B */

    if (layer->shift > 0) {
        y[0] = k_ssat8(k_smmla((int32_t)(first << 8), (int32_t)w[0], (int32_t)w[2]) >> layer->shift);
        y[1] = k_ssat8(k_smmla((int32_t)second, (int32_t)w[1], (int32_t)w[3]) >> layer->shift);
    } else {
        uint32_t b = (uint32_t)((int32_t)second >> 8);
        y[0] = k_round_twice(first, (int32_t)w[0], w[2] & 31u, layer->zero);
        y[1] = k_round_twice(b, (int32_t)w[1], w[2] >> 8 & 31u, layer->zero);
    }
}

/* Where channel `o`, even and counted as the weights are ordered, of the first pixel lies behind y. */
static int32_t place(const k_dsp_pairs_s8_t *layer, int32_t o)
{
    int32_t planes = layer->outputs / 4;
    int32_t pair = o / 2;

    if (layer->planes == 0) {
        return o;
    }
    return pair < planes ? pair * layer->step_bytes : (pair - planes) * layer->step_bytes + 2;
}

void k_dsp_pairs_s8(const k_dsp_pairs_s8_t *layer, const uint32_t *block, int8_t *y)
{
    const uint32_t *w = layer->weights;

    for (int32_t o = 0; o < layer->outputs; o += 2) {
        uint32_t first[3] = {w[0], w[0], w[0]};
        uint32_t raw[3] = {w[1], w[1], w[1]};
        const uint32_t *x = block;
        w += 2;
        for (int32_t k = 0; k < layer->depth; k += 2) {
            for (int32_t i = 0; i < 3; i++) {
                first[i] = k_smlad(x[i], k_sxtb16(*w), first[i]);
                raw[i] = k_smlad(x[i], *w, raw[i]);
            }
            w++;
            x += 3;
        }
        for (int32_t i = 0; i < 3; i++) {
            finish(layer, w, first[i], raw[i], y + place(layer, o) + i * k_dsp_pairs_s8_pixel_bytes(layer));
        }
        w += layer->shift > 0 ? 4 : 3;
    }
}
