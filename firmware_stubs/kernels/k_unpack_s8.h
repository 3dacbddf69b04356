/* SPDX-License-Identifier: 0BSD */
/* Weights that are indices into small tables, unpacked into scratch as k_gemm_s8 reads them. */
#ifndef K_UNPACK_S8_H
#define K_UNPACK_S8_H

#include <stdint.h>

#include "k_gemm_s8.h"

typedef struct {
    /* For each block of four outputs depth times their four indices, the first in the lowest bits; the last one to
     * three outputs follow as rows of depth indices, each in whole bytes. */
    const uint8_t *indices;
    const int8_t *tables;          /* [tables][1 << bits] */
    const uint8_t *channel_tables; /* [outputs], or 0: one table for all */
    int32_t bits;                  /* 4 or 2 */
    int32_t chunk;                 /* outputs that are unpacked together: a multiple of 4, or all */
} k_unpack_s8_t;

/* Bytes of scratch for the weights of a chunk, in whole words. */
#define K_UNPACK_S8_SCRATCH_BYTES(depth, chunk) (((depth) * (chunk) + 3) & ~3)

/* The part of `whole` from output `at` on (a multiple of packed->chunk), with its weights unpacked into `weights`. */
k_gemm_s8_t k_unpack_s8(const k_gemm_s8_t *whole, const k_unpack_s8_t *packed, int32_t at, int8_t *weights);

#endif
