/* SPDX-License-Identifier: 0BSD */
/* MUL, int8, with broadcasting:
 *
 * y = clamp(requantize((a - a_zero_point) * (b - b_zero_point)) + out_zero_point)
 *
 * y may be the same as an operand that is not broadcast, else they must not overlap. No alignment; no
 * scratch. */
#ifndef K_MUL_S8_H
#define K_MUL_S8_H

#include <stdint.h>

#include "k_broadcast.h"

typedef struct {
    k_broadcast_t shape;
    int32_t multiplier; /* >= 0 */
    int16_t shift;      /* in [-31, 30] */
    int16_t a_zero_point;
    int16_t b_zero_point;
    int16_t out_zero_point;
    int8_t lowest; /* the activation's clamp */
    int8_t highest;
} k_mul_s8_t;

void k_mul_s8(const k_mul_s8_t *layer, const int8_t *a, const int8_t *b, int8_t *y);

#endif
