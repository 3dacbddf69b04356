/* SPDX-License-Identifier: 0BSD */
/* MEAN over height and width, int8: y[c] = clamp(requantize(sum of x[.][c] - pixels * in_zero_point) + out_zero_point).
 *
 * The division by the number of pixels is in the multiplier. x and y must not overlap; no alignment;
 * no scratch. */
#ifndef K_MEAN_S8_H
#define K_MEAN_S8_H

#include <stdint.h>

typedef struct {
    int32_t pixels; /* 1 to 2^23 */
    int32_t channels;
    int32_t multiplier; /* >= 0 */
    int16_t shift;      /* in [-31, 30] */
    int16_t in_zero_point;
    int16_t out_zero_point;
} k_mean_s8_t;

/* x: [pixels][channels], y: [channels]. */
void k_mean_s8(const k_mean_s8_t *layer, const int8_t *x, int8_t *y);

#endif
