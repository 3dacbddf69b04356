/* SPDX-License-Identifier: 0BSD */
/* Rows of int8 times a matrix of int8 weights: FULLY_CONNECTED, the 1x1 CONV_2D with stride 1, and the
 * inner part of every other CONV_2D.
 *
 * y[r][o] = clamp(requantize(bias[o] + sum over k of x[r][k] * weights[o][k]) + out_zero_point)
 *
 * The input's zero point is folded into bias at build time: bias[o] = b[o] - zero_point * sum(weights[o]),
 * modulo 2^32. No alignment is needed. x and y must not overlap. No scratch. */
#ifndef K_GEMM_S8_H
#define K_GEMM_S8_H

#include <stdint.h>

typedef struct {
    const int8_t *weights;     /* [outputs][depth] */
    const int32_t *bias;       /* [outputs] */
    const int32_t *multiplier; /* [outputs], or [1] where channel_step is 0; each >= 0 */
    const int8_t *shift;       /* as multiplier; each in [-31, 30] */
    int32_t depth;             /* >= 1 */
    int32_t outputs;           /* >= 1 */
    int16_t channel_step;      /* 1: a multiplier a channel; 0: one for all */
    int16_t out_zero_point;    /* in int8 */
    int8_t lowest;             /* the activation's clamp */
    int8_t highest;
} k_gemm_s8_t;

/* x: [rows][depth], y: [rows][outputs]; rows >= 0. */
void k_gemm_s8(const k_gemm_s8_t *layer, const int8_t *x, int32_t rows, int8_t *y);

#endif
