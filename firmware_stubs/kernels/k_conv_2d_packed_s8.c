/* SPDX-License-Identifier: 0BSD */
#include "k_conv_2d_packed_s8.h"

#include "k_copy_rows_8.h"

void k_conv_2d_packed_s8(const k_conv_2d_packed_s8_t *layer, const int8_t *x, int32_t *scratch, int8_t *y)
{
    k_conv_2d_s8_t part = layer->conv;
    int32_t outputs = part.gemm.outputs;
    int32_t depth = part.gemm.depth;
    int32_t chunk = layer->packed.chunk;
    int32_t row_bytes = part.out_w * outputs;
    int32_t *words = scratch + K_UNPACK_S8_SCRATCH_BYTES(depth, chunk) / 4;
    int8_t *line = (int8_t *)(words + depth);

    for (int32_t at = 0; at < outputs; at += chunk) {
        part.gemm = k_unpack_s8(&layer->conv.gemm, &layer->packed, at, (int8_t *)scratch);
        if (part.gemm.outputs == outputs) {
            k_conv_2d_s8(&part, x, words, y);
            return;
        }
        part.out_h = 1; /* an output row at a time: they lie apart in y */
        part.pad_top = layer->conv.pad_top;
        for (int32_t row = 0; row < layer->conv.out_h; row++) {
            k_conv_2d_s8(&part, x, words, line);
            k_copy_rows_8(line, part.out_w, part.gemm.outputs, outputs, y + at + row * row_bytes);
            part.pad_top = (int16_t)(part.pad_top - part.stride_h);
        }
    }
}
