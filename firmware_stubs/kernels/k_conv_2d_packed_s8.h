/* SPDX-License-Identifier: 0BSD */
/* k_conv_2d_s8 with weights that are indices into small tables: some outputs at a time over the whole image. */
#ifndef K_CONV_2D_PACKED_S8_H
#define K_CONV_2D_PACKED_S8_H

#include <stdint.h>

#include "k_conv_2d_s8.h"
#include "k_unpack_s8.h"

typedef struct {
    k_conv_2d_s8_t conv; /* gemm.weights is not read */
    k_unpack_s8_t packed;
} k_conv_2d_packed_s8_t;

/* Scratch: the weights of a chunk, then the words of k_conv_2d_s8, then an output row of a chunk where there are
 * several chunks. The rest as k_conv_2d_s8; x, scratch and y must not overlap. */
void k_conv_2d_packed_s8(const k_conv_2d_packed_s8_t *layer, const int8_t *x, int32_t *scratch, int8_t *y);

#endif
