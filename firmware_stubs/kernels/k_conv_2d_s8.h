/* SPDX-License-Identifier: 0BSD */
/* CONV_2D, int8, NHWC, any filter, stride, dilation and padding.
 *
 * The windows of two output pixels (of one, where gemm.paired is 0) are gathered as one row of words,
 * [filter_h][filter_w][channels], with the input's zero point where a window lies outside the image, and
 * multiplied by k_gemm_words_s8. gemm.depth is filter_h * filter_w * channels.
 * x, words and y must not overlap. */
#ifndef K_CONV_2D_S8_H
#define K_CONV_2D_S8_H

#include <stdint.h>

#include "k_gemm_s8.h"

typedef struct {
    k_gemm_s8_t gemm;
    int16_t in_h; /* every extent >= 1 */
    int16_t in_w;
    int16_t channels;
    int16_t out_h;
    int16_t out_w;
    int16_t filter_h;
    int16_t filter_w;
    int16_t stride_h;
    int16_t stride_w;
    int16_t dilation_h;
    int16_t dilation_w;
    int16_t pad_top; /* below 0: the first window begins so many rows inside the image */
    int16_t pad_left;
    int16_t in_zero_point; /* in int8 */
} k_conv_2d_s8_t;

/* Bytes of `words` that k_conv_2d_s8 needs for a gemm.depth. */
#define K_CONV_2D_S8_SCRATCH_BYTES(depth) (4 * (depth))

/* x: [in_h][in_w][channels], y: [out_h][out_w][outputs]. */
void k_conv_2d_s8(const k_conv_2d_s8_t *layer, const int8_t *x, int32_t *words, int8_t *y);

#endif
