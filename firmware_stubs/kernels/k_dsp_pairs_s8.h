/* SPDX-License-Identifier: 0BSD */
/* Three pixels times a matrix of int8, two output channels at a time ("raw pairs").
 *
 * A halfword of the weights is a + 256 * b, with a of one channel and b of the next. SMLAD on it sums
 * A + 256 * B, SMLAD on its low bytes (SXTB16) sums A; their difference is 256 * B. Any |A|, |B| < 2^23. */
#ifndef K_DSP_PAIRS_S8_H
#define K_DSP_PAIRS_S8_H

#include <stdint.h>

typedef struct {
    /* For each pair of channels: bias A, bias A + 256 * bias B; depth / 2 words (of each four inputs
     * 0 to 3 the pair 0, 2 and the pair 1, 3); then, with shift > 0, m A, m B, c A, c B (see proved
     * rounding in docs/kernels.md), else multiplier A, multiplier B, and a word with (right shift - 1) of
     * A in its lowest byte, of B in the next. */
    const uint32_t *weights;
    int32_t depth;      /* inputs of an output: a multiple of 4 */
    int32_t outputs;    /* even */
    int32_t skip_bytes; /* the assembly's entry into its unrolled loop */
    int32_t zero;       /* 2 * output zero point + 1 */
    int32_t step_bytes; /* from a pixel to the next in y, or from a plane to the next */
    int16_t shift;      /* of the proved rounding; 0: rounded twice as TFLite does */
    int16_t planes;     /* 0: y is [pixel][outputs]; 1: y is in planes of four channels, and the pairs come as
                           channels 0, 1 of each plane, then channels 2, 3 of each */
} k_dsp_pairs_s8_t;

/* Bytes from a pixel to the next in y. */
static inline int32_t k_dsp_pairs_s8_pixel_bytes(const k_dsp_pairs_s8_t *layer)
{
    return layer->planes != 0 ? 4 : layer->step_bytes;
}

/* block: for each four inputs six words, the pairs 0, 2 of three pixels, then their pairs 1, 3 (int16).
 * y: where the first pixel's outputs begin; a plane is aligned to 4. */
typedef void k_dsp_pairs_s8_function(const k_dsp_pairs_s8_t *layer, const uint32_t *block, int8_t *y);

k_dsp_pairs_s8_function k_dsp_pairs_s8;

#endif
