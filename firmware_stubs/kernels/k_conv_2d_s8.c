/* SPDX-License-Identifier: 0BSD */
/* See k_conv_2d_s8.h. */
#include "k_conv_2d_s8.h"

#include "k_common.h"
#include "k_window.h"

/* `count` values into the words of the first pixel (half is 0), or on top of them for the second. */
static void put(const int8_t *from, int32_t count, int32_t half, int32_t *to)
{
    if (half == 0) {
        for (int32_t i = 0; i < count; i++) {
            to[i] = from[i];
        }
    } else {
        for (int32_t i = 0; i < count; i++) {
            to[i] += from[i] * K_GEMM_SECOND;
        }
    }
}

/* As put, with the zero point: what lies outside the image. */
static void put_outside(int32_t zero_point, int32_t count, int32_t half, int32_t *to)
{
    if (half == 0) {
        for (int32_t i = 0; i < count; i++) {
            to[i] = zero_point;
        }
    } else {
        for (int32_t i = 0; i < count; i++) {
            to[i] += zero_point * K_GEMM_SECOND;
        }
    }
}

/* One row of the window, inside the image from top to bottom; its first tap lies at `left`. */
static void gather_row(const k_conv_2d_s8_t *layer, const int8_t *line, int32_t left, int32_t half, int32_t *to)
{
    k_span_t span = k_clip(left, layer->dilation_w, layer->filter_w, layer->in_w);
    int32_t channels = layer->channels;
    int32_t first = k_min(span.first, layer->filter_w);
    int32_t behind = layer->filter_w - first - span.count;

    put_outside(layer->in_zero_point, first * channels, half, to);
    to += first * channels;
    left += first * layer->dilation_w;
    if (layer->dilation_w == 1 && span.count > 0) { /* what is inside is one run of bytes */
        put(line + left * channels, span.count * channels, half, to);
        to += span.count * channels;
    } else {
        for (int32_t tap = 0; tap < span.count; tap++) {
            put(line + (left + tap * layer->dilation_w) * channels, channels, half, to);
            to += channels;
        }
    }
    put_outside(layer->in_zero_point, behind * channels, half, to);
}

/* The window whose upper left tap lies at (top, left) of the image. */
static void gather(
    const k_conv_2d_s8_t *layer, const int8_t *x, int32_t top, int32_t left, int32_t half, int32_t *to)
{
    int32_t run = layer->filter_w * layer->channels;

    for (int32_t tap = 0; tap < layer->filter_h; tap++) {
        if (top < 0 || top >= layer->in_h) {
            put_outside(layer->in_zero_point, run, half, to);
        } else {
            gather_row(layer, x + top * layer->in_w * layer->channels, left, half, to);
        }
        top += layer->dilation_h;
        to += run;
    }
}

void k_conv_2d_s8(const k_conv_2d_s8_t *layer, const int8_t *x, int32_t *words, int8_t *y)
{
    int32_t together = layer->gemm.paired != 0 ? 2 : 1;
    int32_t waiting = 0;

    for (int32_t row = 0; row < layer->out_h; row++) {
        int32_t top = row * layer->stride_h - layer->pad_top;
        int32_t left = -layer->pad_left;
        for (int32_t column = 0; column < layer->out_w; column++) {
            gather(layer, x, top, left, waiting, words);
            left += layer->stride_w;
            waiting++;
            if (waiting == together) {
                k_gemm_words_s8(&layer->gemm, words, waiting, y);
                y += waiting * layer->gemm.outputs;
                waiting = 0;
            }
        }
    }
    if (waiting > 0) {
        k_gemm_words_s8(&layer->gemm, words, waiting, y);
    }
}
