/* SPDX-License-Identifier: 0BSD */
/* DEPTHWISE_CONV_2D, int8, filter 3 x 3, multiplier 1, dilation 1, on planes of four channels.
 *
 * Two rows of a channel lie in the halves of a word (times 256), so that SMLAD takes two taps. Four
 * channels at a time: their rows are spread into scratch once, two rows a step, each step replacing the older of two. */
#ifndef K_DSP_DEPTHWISE_S8_H
#define K_DSP_DEPTHWISE_S8_H

#include <stdint.h>

typedef struct k_dsp_depthwise_s8 k_dsp_depthwise_s8_t;

/* One plane. weights: for each of its four channels 18 bytes: 9 taps, how far they are shifted left, bias
 * and multiplier (int32, first byte lowest); scratch as in k_dsp_depthwise_s8. */
typedef void k_dsp_depthwise_leaf_s8_function(const k_dsp_depthwise_s8_t *layer, const int8_t *x,
                                              int32_t *scratch, int8_t *y, const int8_t *weights);

struct k_dsp_depthwise_s8 {
    int32_t in_w;
    int32_t in_h;
    int32_t out_w;
    int32_t out_h;
    int32_t pad_top; /* 0 or 1 */
    int32_t pad_left;
    int32_t columns; /* (out_w - 1) * stride + 3: of the padded image */
    int32_t turns;   /* of the assembly's loop, less one */
    int32_t read;    /* columns of the image that are used: at most in_w */
    int32_t stride;  /* 1 or 2, of both axes */
    int32_t channels;
    int32_t in_zero_point;
    int32_t shift; /* of the rounding: SMMUL, then SSAT with this shift */
    int32_t zero;  /* 2 * output zero point + 1 */
    const int8_t *weights;
    k_dsp_depthwise_leaf_s8_function *leaf;
    k_dsp_depthwise_leaf_s8_function *plain; /* for planes whose tenth byte is negative; may be 0 without any */
};

k_dsp_depthwise_leaf_s8_function k_dsp_depthwise_leaf_s8;

/* Bytes of scratch: a row of zero points, then for each of four channels 14 words of weights and two words
 * a column. */
#define K_DSP_DEPTHWISE_S8_SCRATCH_BYTES(in_w, columns) (4 * (in_w) + 4 * (56 + 8 * (columns)))

void k_dsp_depthwise_s8(const k_dsp_depthwise_s8_t *layer, const int8_t *x, int32_t *scratch, int8_t *y);

#endif
