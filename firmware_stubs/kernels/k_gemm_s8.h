/* SPDX-License-Identifier: 0BSD */
/* Rows of int8 times a matrix of int8 weights: FULLY_CONNECTED, the 1x1 CONV_2D with stride 1, and the
 * inner part of every other CONV_2D.
 *
 * y[r][o] = clamp(requantize(bias[o] + sum over k of x[r][k] * weights[o][k]) + out_zero_point)
 *
 * The input's zero point is folded into bias at build time: bias[o] = b[o] - zero_point * sum(weights[o]),
 * modulo 2^32. Two rows share each multiply: a word holds x0 + x1 * 2^23, so that one 32 x 32 -> 64 bit
 * product adds to both sums; the lower sum must stay below 2^22, which `paired` promises.
 *
 * Weights are stored by blocks of four outputs, [depth][4] each; the last one to three outputs follow as
 * plain rows [depth]. x, words and y must not overlap. */
#ifndef K_GEMM_S8_H
#define K_GEMM_S8_H

#include <stdint.h>

typedef struct {
    const int8_t *weights;
    const int32_t *bias;       /* [outputs] */
    const int32_t *multiplier; /* [outputs], or [1] where channel_step is 0; each >= 0 */
    const int8_t *shift;       /* as multiplier; each in [-31, 30] */
    int32_t depth;             /* >= 1 */
    int32_t outputs;           /* >= 1 */
    int16_t channel_step;      /* 1: a multiplier a channel; 0: one for all */
    int16_t out_zero_point;    /* in int8 */
    int8_t lowest;             /* the activation's clamp */
    int8_t highest;
    int8_t paired; /* 1: for every output the sum of |weights| is below 2^15 */
} k_gemm_s8_t;

/* What the second of two rows is multiplied by within a word. */
#define K_GEMM_SECOND ((int32_t)1 << 23)

/* Bytes of `words` that k_gemm_s8 needs for a depth and more than one row. */
#define K_GEMM_S8_SCRATCH_BYTES(depth) (4 * (depth))

/* x: [rows][depth], y: [rows][outputs]; rows >= 0. words is not used where rows is 1 or paired is 0. */
void k_gemm_s8(const k_gemm_s8_t *layer, const int8_t *x, int32_t rows, int32_t *words, int8_t *y);

/* words: [depth], each x0 (rows is 1) or x0 + x1 * K_GEMM_SECOND (rows is 2, needs paired); y: [rows][outputs]. */
void k_gemm_words_s8(const k_gemm_s8_t *layer, const int32_t *words, int32_t rows, int8_t *y);

#endif
