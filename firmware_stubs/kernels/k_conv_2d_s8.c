/* SPDX-License-Identifier: 0BSD */
/* See k_conv_2d_s8.h. */
#include "k_conv_2d_s8.h"

#include "k_common.h"

/* One row of the window, dilation 1: what lies inside the image is one run of bytes. */
static void gather_run(const k_conv_2d_s8_t *layer, const int8_t *row, int32_t left, int8_t *to)
{
    int32_t first = k_min(k_max(-left, 0), layer->filter_w);
    int32_t last = k_max(k_min(layer->in_w - left, layer->filter_w), first);
    int32_t channels = layer->channels;

    k_fill(to, (int8_t)layer->in_zero_point, first * channels);
    if (last > first) {
        k_copy(row + (left + first) * channels, to + first * channels, (last - first) * channels);
    }
    k_fill(to + last * channels, (int8_t)layer->in_zero_point, (layer->filter_w - last) * channels);
}

/* One row of the window, any dilation: a tap at a time. */
static void gather_taps(const k_conv_2d_s8_t *layer, const int8_t *row, int32_t left, int8_t *to)
{
    for (int32_t tap = 0; tap < layer->filter_w; tap++) {
        if (left >= 0 && left < layer->in_w) {
            k_copy(row + left * layer->channels, to, layer->channels);
        } else {
            k_fill(to, (int8_t)layer->in_zero_point, layer->channels);
        }
        left += layer->dilation_w;
        to += layer->channels;
    }
}

/* The whole window whose upper left tap lies at (top, left) of the image. */
static void gather(const k_conv_2d_s8_t *layer, const int8_t *x, int32_t top, int32_t left, int8_t *to)
{
    int32_t run = layer->filter_w * layer->channels;

    for (int32_t tap = 0; tap < layer->filter_h; tap++) {
        if (top < 0 || top >= layer->in_h) {
            k_fill(to, (int8_t)layer->in_zero_point, run);
        } else if (layer->dilation_w == 1) {
            gather_run(layer, x + top * layer->in_w * layer->channels, left, to);
        } else {
            gather_taps(layer, x + top * layer->in_w * layer->channels, left, to);
        }
        top += layer->dilation_h;
        to += run;
    }
}

void k_conv_2d_s8(const k_conv_2d_s8_t *layer, const int8_t *x, int8_t *scratch, int8_t *y)
{
    int32_t waiting = 0;

    for (int32_t row = 0; row < layer->out_h; row++) {
        int32_t top = row * layer->stride_h - layer->pad_top;
        int32_t left = -layer->pad_left;
        for (int32_t column = 0; column < layer->out_w; column++) {
            gather(layer, x, top, left, scratch + waiting * layer->gemm.depth);
            left += layer->stride_w;
            waiting++;
            if (waiting == 2) {
                k_gemm_s8(&layer->gemm, scratch, 2, y);
                y += 2 * layer->gemm.outputs;
                waiting = 0;
            }
        }
    }
    k_gemm_s8(&layer->gemm, scratch, waiting, y);
}
