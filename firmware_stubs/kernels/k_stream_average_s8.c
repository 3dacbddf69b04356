/* SPDX-License-Identifier: 0BSD */
#include "k_stream_average_s8.h"

#include "k_dsp.h"

/* The mean to nearest, ties away from zero. */
static int8_t mean(int32_t sum, int32_t count)
{
    return (int8_t)((sum < 0 ? sum - count / 2 : sum + count / 2) / count);
}

void k_stream_average_s8(const k_stream_average_s8_t *layer, int32_t *words)
{
    k_stream_run_t run;

    if (k_stream_begin(&layer->stage, words, &run) != 0) {
        int32_t is_last = run.first + run.rows == layer->stage.out->rows;
        const int8_t *x = run.x;
        int8_t *y = (int8_t *)words + layer->stage.out->window;
        uint32_t *kept = (uint32_t *)(void *)words + layer->sums;
        k_dsp_average_s8_t part = layer->average;
        part.pixels = run.rows * layer->out_w;
        for (int32_t channel = 0; channel < part.channels; channel += 4) {
            uint32_t sums[2];
            part.leaf(&part, x, sums);
            if (run.first > 0) {
                sums[0] = k_sadd16(sums[0], kept[0]);
                sums[1] = k_sadd16(sums[1], kept[1]);
            }
            kept[0] = sums[0];
            kept[1] = sums[1];
            if (is_last != 0) {
                y[0] = mean(k_low(sums[0]), layer->average.pixels);
                y[1] = mean(k_low(sums[1]), layer->average.pixels);
                y[2] = mean(k_high(sums[0]), layer->average.pixels);
                y[3] = mean(k_high(sums[1]), layer->average.pixels);
                y += 4;
            }
            kept += 2;
            x += part.four_bytes;
        }
        k_stream_end(&layer->stage, words, &run);
    }
}
