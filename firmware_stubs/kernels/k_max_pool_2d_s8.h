/* SPDX-License-Identifier: 0BSD */
/* MAX_POOL_2D, int8, NHWC: the largest of the window's pixels inside the image.
 * Input and output have the same quantization. x and y must not overlap; no alignment; no scratch. */
#ifndef K_MAX_POOL_2D_S8_H
#define K_MAX_POOL_2D_S8_H

#include <stdint.h>

typedef struct {
    int16_t in_h; /* every extent >= 1 */
    int16_t in_w;
    int16_t channels;
    int16_t out_h;
    int16_t out_w;
    int16_t filter_h;
    int16_t filter_w;
    int16_t stride_h;
    int16_t stride_w;
    int16_t pad_top; /* >= 0; each window holds at least one pixel of the image */
    int16_t pad_left;
    int8_t lowest; /* the activation's clamp */
    int8_t highest;
} k_max_pool_2d_s8_t;

/* x: [in_h][in_w][channels], y: [out_h][out_w][channels]. */
void k_max_pool_2d_s8(const k_max_pool_2d_s8_t *layer, const int8_t *x, int8_t *y);

#endif
