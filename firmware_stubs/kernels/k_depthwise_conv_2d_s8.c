/* SPDX-License-Identifier: 0BSD */
/* See k_depthwise_conv_2d_s8.h. */
#include "k_depthwise_conv_2d_s8.h"

#include "k_common.h"
#include "k_window.h"

/* The clipped window of one output pixel: first tap, and the steps from tap to tap and row to row. */
typedef struct {
    const int8_t *x;
    const int8_t *weights;
    int32_t rows;
    int32_t columns;
    int32_t x_row;
    int32_t x_column;
    int32_t weights_row;
    int32_t weights_column;
    int32_t zero_point;
} window_t;

static window_t clip(const k_depthwise_conv_2d_s8_t *layer, const int8_t *x, int32_t top, int32_t left)
{
    k_span_t rows = k_clip(top, layer->dilation_h, layer->filter_h, layer->in_h);
    k_span_t columns = k_clip(left, layer->dilation_w, layer->filter_w, layer->in_w);
    int32_t line = layer->in_w * layer->channels;
    window_t window;

    top += rows.first * layer->dilation_h;
    left += columns.first * layer->dilation_w;
    /* A window wholly outside the image has no taps: its start is not to be computed. */
    window.x = (rows.count > 0 && columns.count > 0) ? x + top * line + left * layer->channels : x;
    window.weights = layer->weights + (rows.first * layer->filter_w + columns.first) * layer->outputs;
    window.rows = columns.count > 0 ? rows.count : 0;
    window.columns = columns.count;
    window.x_row = line * layer->dilation_h;
    window.x_column = layer->channels * layer->dilation_w;
    window.weights_row = layer->filter_w * layer->outputs;
    window.weights_column = layer->outputs;
    window.zero_point = layer->in_zero_point;
    return window;
}

/* sums[0..3] of channels `at` to `at` + 3 (depth multiplier 1). */
K_NOINLINE static void sum_4(const window_t *window, int32_t at, const int32_t *bias, uint32_t *sums)
{
    const int8_t *x = window->x + at;
    const int8_t *w = window->weights + at;
    int32_t zero_point = window->zero_point;
    uint32_t a0 = (uint32_t)bias[0];
    uint32_t a1 = (uint32_t)bias[1];
    uint32_t a2 = (uint32_t)bias[2];
    uint32_t a3 = (uint32_t)bias[3];

    for (int32_t row = 0; row < window->rows; row++) {
        int32_t i = row * window->x_row;
        int32_t j = row * window->weights_row;
        K_ROLLED
        for (int32_t n = window->columns; n > 0; n--) {
            a0 = k_mac(a0, x[i] - zero_point, w[j]);
            a1 = k_mac(a1, x[i + 1] - zero_point, w[j + 1]);
            a2 = k_mac(a2, x[i + 2] - zero_point, w[j + 2]);
            a3 = k_mac(a3, x[i + 3] - zero_point, w[j + 3]);
            i += window->x_column;
            j += window->weights_column;
        }
    }
    sums[0] = a0;
    sums[1] = a1;
    sums[2] = a2;
    sums[3] = a3;
}

/* sum plus the products of input channel `from` and output channel `at`. */
static uint32_t sum_1(const window_t *window, int32_t from, int32_t at, uint32_t sum)
{
    for (int32_t row = 0; row < window->rows; row++) {
        const int8_t *x = window->x + row * window->x_row + from;
        const int8_t *w = window->weights + row * window->weights_row + at;
        for (int32_t n = 0; n < window->columns; n++) {
            sum = k_mac(sum, x[n * window->x_column] - window->zero_point, w[n * window->weights_column]);
        }
    }
    return sum;
}

/* Fields are copied: y may point anywhere, as far as a compiler knows. */
static void finish(const k_depthwise_conv_2d_s8_t *layer, int32_t at, const uint32_t *sums, int32_t count, int8_t *y)
{
    int32_t step = layer->channel_step;
    const int32_t *multiplier = layer->multiplier + at * step;
    const int8_t *shift = layer->shift + at * step;
    int32_t zero_point = layer->out_zero_point;
    int32_t lowest = layer->lowest;
    int32_t highest = layer->highest;

    y += at;
    for (; count > 0; count--) {
        int32_t scaled = k_requantize((int32_t)*sums++, *multiplier, *shift);
        *y++ = k_clamp(scaled + zero_point, lowest, highest);
        multiplier += step;
        shift += step;
    }
}

static void pixel(const k_depthwise_conv_2d_s8_t *layer, const window_t *window, int8_t *y)
{
    uint32_t sums[4];
    int32_t at = 0;

    if (layer->depth_multiplier == 1) {
        for (; at + 4 <= layer->outputs; at += 4) {
            sum_4(window, at, layer->bias + at, sums);
            finish(layer, at, sums, 4, y);
        }
    }
    for (; at < layer->outputs; at++) {
        int32_t from = at / layer->depth_multiplier;
        sums[0] = sum_1(window, from, at, (uint32_t)layer->bias[at]);
        finish(layer, at, sums, 1, y);
    }
}

void k_depthwise_conv_2d_s8(const k_depthwise_conv_2d_s8_t *layer, const int8_t *x, int8_t *y)
{
    for (int32_t row = 0; row < layer->out_h; row++) {
        int32_t top = row * layer->stride_h - layer->pad_top;
        for (int32_t column = 0; column < layer->out_w; column++) {
            int32_t left = column * layer->stride_w - layer->pad_left;
            window_t window = clip(layer, x, top, left);
            pixel(layer, &window, y);
            y += layer->outputs;
        }
    }
}
