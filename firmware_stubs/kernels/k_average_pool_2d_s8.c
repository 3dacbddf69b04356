/* SPDX-License-Identifier: 0BSD */
/* See k_average_pool_2d_s8.h. */
#include "k_average_pool_2d_s8.h"

#include "k_common.h"
#include "k_window.h"

/* The mean of one channel: x is the window's first pixel inside the image. */
static int32_t mean(const int8_t *x, int32_t rows, int32_t columns, int32_t line, int32_t channels)
{
    int32_t count = rows * columns;
    int32_t sum = 0;

    for (int32_t row = 0; row < rows; row++) {
        for (int32_t column = 0; column < columns; column++) {
            sum += x[row * line + column * channels];
        }
    }
    return (sum > 0 ? sum + count / 2 : sum - count / 2) / count;
}

void k_average_pool_2d_s8(const k_average_pool_2d_s8_t *layer, const int8_t *x, int8_t *y)
{
    int32_t line = layer->in_w * layer->channels;

    for (int32_t row = 0; row < layer->out_h; row++) {
        int32_t top = row * layer->stride_h - layer->pad_top;
        k_span_t rows = k_clip(top, 1, layer->filter_h, layer->in_h);
        for (int32_t column = 0; column < layer->out_w; column++) {
            int32_t left = column * layer->stride_w - layer->pad_left;
            k_span_t columns = k_clip(left, 1, layer->filter_w, layer->in_w);
            const int8_t *from = x + (top + rows.first) * line + (left + columns.first) * layer->channels;
            for (int32_t channel = 0; channel < layer->channels; channel++) {
                int32_t value = mean(from + channel, rows.count, columns.count, line, layer->channels);
                *y++ = k_clamp(value, layer->lowest, layer->highest);
            }
        }
    }
}
