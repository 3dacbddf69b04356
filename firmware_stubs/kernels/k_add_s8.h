/* SPDX-License-Identifier: 0BSD */
/* ADD and SUB, int8, with broadcasting:
 *
 * y = clamp(requantize(scaled(a) + scaled(b)) + out_zero_point), SUB: scaled(a) - scaled(b),
 * scaled(v) = requantize((v - zero_point) * 2^20)
 *
 * y may be the same as an operand that is not broadcast, else they must not overlap. No alignment; no
 * scratch. */
#ifndef K_ADD_S8_H
#define K_ADD_S8_H

#include <stdint.h>

#include "k_broadcast.h"

typedef struct {
    k_broadcast_t shape;
    int32_t a_multiplier; /* each multiplier >= 0, each shift in [-31, 30] */
    int32_t b_multiplier;
    int32_t out_multiplier;
    int8_t a_shift;
    int8_t b_shift;
    int8_t out_shift;
    int8_t subtract; /* 1: SUB */
    int16_t a_zero_point;
    int16_t b_zero_point;
    int16_t out_zero_point;
    int8_t lowest; /* the activation's clamp */
    int8_t highest;
} k_add_s8_t;

void k_add_s8(const k_add_s8_t *layer, const int8_t *a, const int8_t *b, int8_t *y);

#endif
