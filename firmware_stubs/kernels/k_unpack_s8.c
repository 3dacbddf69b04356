/* SPDX-License-Identifier: 0BSD */
#include "k_unpack_s8.h"

#include "k_common.h"

/* A block of four outputs; t: the table of each. */
K_NOINLINE static void unpack_4(const uint8_t *indices, const int8_t *const *t, int32_t bits, int32_t depth, int8_t *to)
{
    const int8_t *t0 = t[0];
    const int8_t *t1 = t[1];
    const int8_t *t2 = t[2];
    const int8_t *t3 = t[3];

    K_ROLLED
    for (; depth > 0; depth--) {
        if (bits == 4) {
            to[0] = t0[indices[0] & 15];
            to[1] = t1[indices[0] >> 4];
            to[2] = t2[indices[1] & 15];
            to[3] = t3[indices[1] >> 4];
            indices += 2;
        } else {
            to[0] = t0[*indices & 3];
            to[1] = t1[*indices >> 2 & 3];
            to[2] = t2[*indices >> 4 & 3];
            to[3] = t3[*indices >> 6];
            indices++;
        }
        to += 4;
    }
}

/* One output as a plain row. */
K_NOINLINE static void unpack_1(const uint8_t *indices, const int8_t *table, int32_t bits, int32_t depth, int8_t *to)
{
    int32_t mask = (1 << bits) - 1;

    K_ROLLED
    for (int32_t at = 0; at < depth * bits; at += bits) {
        *to++ = table[indices[at >> 3] >> (at & 7) & mask];
    }
}

static const int8_t *table_of(const k_unpack_s8_t *packed, int32_t channel)
{
    int32_t number = packed->channel_tables != 0 ? packed->channel_tables[channel] : 0;
    return packed->tables + (number << packed->bits);
}

k_gemm_s8_t k_unpack_s8(const k_gemm_s8_t *whole, const k_unpack_s8_t *packed, int32_t at, int8_t *weights)
{
    k_gemm_s8_t part = *whole;
    int32_t depth = whole->depth;
    int32_t end = k_min(at + packed->chunk, whole->outputs);
    const uint8_t *indices = packed->indices + (at >> 2) * (depth * packed->bits / 2);

    part.weights = weights;
    part.outputs = end - at;
    part.bias += at;
    part.multiplier += at * whole->channel_step;
    part.shift += at * whole->channel_step;
    for (; at + 4 <= end; at += 4) {
        const int8_t *tables[4];
        K_ROLLED
        for (int32_t i = 0; i < 4; i++) {
            tables[i] = table_of(packed, at + i);
        }
        unpack_4(indices, tables, packed->bits, depth, weights);
        indices += depth * packed->bits / 2;
        weights += 4 * depth;
    }
    for (; at < end; at++) {
        unpack_1(indices, table_of(packed, at), packed->bits, depth, weights);
        indices += (depth * packed->bits + 7) / 8;
        weights += depth;
    }
    return part;
}
