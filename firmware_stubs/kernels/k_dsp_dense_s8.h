/* SPDX-License-Identifier: 0BSD */
/* FULLY_CONNECTED of one row, int8, four outputs at a time, in raw pairs (see k_dsp_pairs_s8.h). */
#ifndef K_DSP_DENSE_S8_H
#define K_DSP_DENSE_S8_H

#include <stdint.h>

typedef struct {
    /* For each four outputs A to D: bias A, bias A + 256 * bias B, bias C, bias C + 256 * bias D; for each
     * four inputs the words of A and B, of C and D on the pair 0, 2, then both on the pair 1, 3; then, with
     * shift > 0, m and c of the proved rounding, A to D each; else four multipliers and a word with the
     * (right shifts - 1), A's in the lowest byte. */
    const uint32_t *weights;
    int32_t depth;      /* a multiple of 8 */
    int32_t outputs;    /* a multiple of 4 */
    int32_t skip_bytes; /* the assembly's entry into its unrolled loop */
    int32_t zero;       /* 2 * output zero point + 1 */
    int32_t shift;      /* of the proved rounding; 0: rounded twice as TFLite does */
} k_dsp_dense_s8_t;

#define K_DSP_DENSE_S8_SCRATCH_BYTES(depth) (2 * (depth))

/* x and y may be anywhere; scratch: depth / 2 words. */
typedef void k_dsp_dense_s8_function(const k_dsp_dense_s8_t *layer, const int8_t *x, int32_t *scratch, int8_t *y);

k_dsp_dense_s8_function k_dsp_dense_s8;

#endif
