/* SPDX-License-Identifier: 0BSD */
#include "k_dsp_dense_s8.h"

#include "k_dsp.h"

/* Outputs A and B (or C and D: `pair` is 1) of the four whose weights begin at w. */
static const uint32_t *two(const k_dsp_dense_s8_t *layer, const uint32_t *w, int32_t pair, const int8_t *x, int8_t *y)
{
    uint32_t first = w[2 * pair];
    uint32_t raw = w[2 * pair + 1];
    uint32_t second;

    w += 4 + pair;
    for (int32_t k = 0; k < layer->depth; k += 4, w += 4) {
        uint32_t word = k_word(x + k);
        uint32_t even = k_sxtb16(word);
        uint32_t odd = k_sxtb16(word >> 8);
        first = k_smlad(even, k_sxtb16(w[0]), k_smlad(odd, k_sxtb16(w[2]), first));
        raw = k_smlad(even, w[0], k_smlad(odd, w[2], raw));
    }
    second = raw - first;
    w += pair; /* the parameters of A or C */
    if (layer->shift > 0) {
        y[0] = k_ssat8(k_smmla((int32_t)(first << 8), (int32_t)w[0], (int32_t)w[4]) >> layer->shift);
        y[1] = k_ssat8(k_smmla((int32_t)second, (int32_t)w[1], (int32_t)w[5]) >> layer->shift);
        return w - 2 * pair + 8;
    } else {
        uint32_t less = w[4 - 2 * pair] >> (16 * pair);
        y[0] = k_round_twice(first, (int32_t)w[0], less & 31u, layer->zero);
        y[1] = k_round_twice((uint32_t)((int32_t)second >> 8), (int32_t)w[1], less >> 8 & 31u, layer->zero);
        return w - 2 * pair + 5;
    }
}

void k_dsp_dense_s8(const k_dsp_dense_s8_t *layer, const int8_t *x, int32_t *scratch, int8_t *y)
{
    const uint32_t *w = layer->weights;

    (void)scratch;
    for (int32_t o = 0; o < layer->outputs; o += 4) {
        (void)two(layer, w, 0, x, y + o);
        w = two(layer, w, 1, x, y + o + 2);
    }
}
