/* SPDX-License-Identifier: 0BSD */
#include "k_stream_conv_s8.h"

void k_stream_conv_s8(const k_stream_conv_s8_t *layer, int32_t *words)
{
    k_stream_run_t run;

    if (k_stream_begin(&layer->stage, words, &run) != 0) {
        /* Field by field: a copy of the whole would call memcpy. */
        const k_dsp_conv_s8_t *whole = &layer->conv;
        k_dsp_conv_s8_t part;
        part.pairs = whole->pairs;
        part.widen = whole->widen;
        part.multiply = whole->multiply;
        part.gather = whole->gather;
        part.gather_row = whole->gather_row;
        part.block_words = whole->block_words;
        part.pixels = run.rows * whole->out_w;
        part.out_h = run.rows;
        part.out_w = whole->out_w;
        part.step_bytes = whole->step_bytes;
        part.row_step_bytes = whole->row_step_bytes;
        part.band_rows = whole->band_rows > 0 ? run.rows : 0;
        part.copy = whole->copy;
        part.in_h = run.in_rows;
        part.in_row_bytes = whole->in_row_bytes;
        part.pitch_bytes = whole->pitch_bytes;
        part.pad_top = run.pad_top;
        part.pad_left_bytes = whole->pad_left_bytes;
        part.filter_h = whole->filter_h;
        part.stride_h = whole->stride_h;
        part.in_zero_point = whole->in_zero_point;
        layer->run(&part, run.x, words + layer->scratch, run.y);
        k_stream_end(&layer->stage, words, &run);
    }
}
