/* SPDX-License-Identifier: 0BSD */
/* DEPTHWISE_CONV_2D, int8, NHWC, any filter, stride, dilation, padding and depth multiplier.
 *
 * y[oy][ox][o] = clamp(requantize(bias[o] + sum over the taps inside the image of
 *     (x[iy][ix][o / depth_multiplier] - in_zero_point) * weights[tap][o]) + out_zero_point)
 *
 * The window is clipped to the image before its loops; four channels share the loops where
 * depth_multiplier is 1. bias is not folded. x and y must not overlap; no alignment; no scratch. */
#ifndef K_DEPTHWISE_CONV_2D_S8_H
#define K_DEPTHWISE_CONV_2D_S8_H

#include <stdint.h>

typedef struct {
    const int8_t *weights;     /* [filter_h][filter_w][outputs] */
    const int32_t *bias;       /* [outputs] */
    const int32_t *multiplier; /* [outputs], or [1] where channel_step is 0; each >= 0 */
    const int8_t *shift;       /* as multiplier; each in [-31, 30] */
    int16_t in_h;              /* every extent >= 1 */
    int16_t in_w;
    int16_t channels;
    int16_t depth_multiplier;
    int16_t out_h;
    int16_t out_w;
    int16_t outputs; /* channels * depth_multiplier */
    int16_t filter_h;
    int16_t filter_w;
    int16_t stride_h;
    int16_t stride_w;
    int16_t dilation_h;
    int16_t dilation_w;
    int16_t pad_top; /* >= 0 */
    int16_t pad_left;
    int16_t in_zero_point; /* in int8 */
    int16_t out_zero_point;
    int16_t channel_step; /* 1: a multiplier a channel; 0: one for all */
    int8_t lowest;        /* the activation's clamp */
    int8_t highest;
} k_depthwise_conv_2d_s8_t;

/* x: [in_h][in_w][channels], y: [out_h][out_w][outputs]. */
void k_depthwise_conv_2d_s8(const k_depthwise_conv_2d_s8_t *layer, const int8_t *x, int8_t *y);

#endif
