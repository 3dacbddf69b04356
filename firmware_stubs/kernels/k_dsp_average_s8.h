/* SPDX-License-Identifier: 0BSD */
/* AVERAGE_POOL_2D over the whole image, int8, without a clamp: sums of four channels, then one division each. */
#ifndef K_DSP_AVERAGE_S8_H
#define K_DSP_AVERAGE_S8_H

#include <stdint.h>

typedef struct k_dsp_average_s8 k_dsp_average_s8_t;

/* sums: those of four channels, as pairs (0, 2) and (1, 3) of int16; x: where the four channels begin. */
typedef void k_dsp_average_leaf_s8_function(const k_dsp_average_s8_t *layer, const int8_t *x, uint32_t *sums);

struct k_dsp_average_s8 {
    int32_t pixels;     /* 1 to 255: the sums are int16 */
    int32_t step_bytes; /* from a pixel to the next */
    int32_t channels;   /* a multiple of 4 */
    int32_t four_bytes; /* from four channels to the next four */
    k_dsp_average_leaf_s8_function *leaf;
};

k_dsp_average_leaf_s8_function k_dsp_average_leaf_s8;

void k_dsp_average_s8(const k_dsp_average_s8_t *layer, const int8_t *x, int8_t *y);

#endif
