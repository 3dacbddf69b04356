/* SPDX-License-Identifier: 0BSD */
/* PAD of up to four axes with one byte. x and y must not overlap; no alignment; no scratch. */
#ifndef K_PAD_8_H
#define K_PAD_8_H

#include <stdint.h>

typedef struct {
    int32_t extent[4]; /* of the output, outermost first */
    int32_t before[4]; /* padding in front of each axis, >= 0 */
    int32_t inside[4]; /* extents of the input, >= 1 */
    int16_t value;     /* in int8 */
} k_pad_8_t;

void k_pad_8(const k_pad_8_t *layer, const int8_t *x, int8_t *y);

#endif
