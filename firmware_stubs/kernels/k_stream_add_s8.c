/* SPDX-License-Identifier: 0BSD */
#include "k_stream_add_s8.h"

void k_stream_add_s8(const k_stream_add_s8_t *layer, int32_t *words)
{
    k_stream_run_t run;

    if (k_stream_begin(&layer->stage, words, &run) != 0) {
        k_dsp_add_s8_t part = layer->sum;
        part.elements *= run.rows;
        layer->leaf(&part, run.x, run.other, run.y);
        k_stream_end(&layer->stage, words, &run);
    }
}
