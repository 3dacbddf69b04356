/* SPDX-License-Identifier: 0BSD */
/* SOFTMAX along the last axis, int8 in, int8 out in steps of 1/256 from -128: gemmlowp's fixed point.
 *
 * exps[d] is exp(-d * beta * scale) in Q0.31 for d = largest - x; a difference of exps_length or more
 * counts as 0. x and y may be the same, else they must not overlap. No alignment; no scratch. */
#ifndef K_SOFTMAX_S8_H
#define K_SOFTMAX_S8_H

#include <stdint.h>

typedef struct {
    const int32_t *exps; /* [exps_length] */
    int32_t exps_length; /* 1 to 256; exps[0] is the largest int32 */
    int32_t rows;
    int32_t depth; /* 1 to 4095 */
} k_softmax_s8_t;

/* x, y: [rows][depth]. */
void k_softmax_s8(const k_softmax_s8_t *layer, const int8_t *x, int8_t *y);

#endif
