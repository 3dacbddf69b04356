/* SPDX-License-Identifier: 0BSD */
#include "k_gemm_packed_s8.h"

#include "k_common.h"
#include "k_copy_rows_8.h"

/* Some outputs of all rows, two rows at a time by way of `words`' end. */
static void run_part(
    const k_gemm_s8_t *part, const int8_t *x, int32_t rows, int32_t *words, int32_t outputs, int8_t *y)
{
    int8_t *two = (int8_t *)(words + part->depth);

    while (rows > 0) {
        int32_t now = k_min(rows, 2);
        k_gemm_s8(part, x, now, words, two);
        k_copy_rows_8(two, now, part->outputs, outputs, y);
        x += now * part->depth;
        y += now * outputs;
        rows -= now;
    }
}

void k_gemm_packed_s8(
    const k_gemm_packed_s8_t *layer, const int8_t *x, int32_t rows, int32_t *scratch, int8_t *y)
{
    int32_t outputs = layer->gemm.outputs;
    int32_t chunk = layer->packed.chunk;
    int8_t *weights = (int8_t *)scratch;
    int32_t *words = scratch + K_UNPACK_S8_SCRATCH_BYTES(layer->gemm.depth, chunk) / 4;

    for (int32_t at = 0; at < outputs; at += chunk) {
        k_gemm_s8_t part = k_unpack_s8(&layer->gemm, &layer->packed, at, weights);
        if (part.outputs == outputs || rows == 1) {
            k_gemm_s8(&part, x, rows, words, y + at);
        } else {
            run_part(&part, x, rows, words, outputs, y + at);
        }
    }
}
