/* SPDX-License-Identifier: 0BSD */
/* k_gemm_s8 with weights that are indices into small tables: some outputs at a time over all rows. */
#ifndef K_GEMM_PACKED_S8_H
#define K_GEMM_PACKED_S8_H

#include <stdint.h>

#include "k_gemm_s8.h"
#include "k_unpack_s8.h"

typedef struct {
    k_gemm_s8_t gemm; /* its weights are not read */
    k_unpack_s8_t packed;
} k_gemm_packed_s8_t;

/* Scratch: the weights of a chunk, then the words of k_gemm_s8, then two rows of a chunk where there are several
 * chunks and rows. The rest as k_gemm_s8; scratch must not overlap x and y. */
void k_gemm_packed_s8(
    const k_gemm_packed_s8_t *layer, const int8_t *x, int32_t rows, int32_t *scratch, int8_t *y);

#endif
