/* SPDX-License-Identifier: 0BSD */
/* CONV_2D and the ADD of its output to a tensor of the same shape, int8, NHWC: k_dsp_conv_s8 or
 * k_dsp_pointwise_s8 with a step behind the multiplication of each block, which adds the three pixels to
 * what y holds there. The convolution's output exists for one block at a time. */
#ifndef K_DSP_RESIDUAL_S8_H
#define K_DSP_RESIDUAL_S8_H

#include <stdint.h>

#include "k_dsp_add_s8.h"
#include "k_dsp_conv_s8.h"

typedef void k_dsp_residual_s8_run(const k_dsp_conv_s8_t *layer, const int8_t *x, int32_t *scratch, int8_t *y);

typedef struct {
    /* First, so that a pointer to its `pairs` is one to the whole. Its `multiply` is k_dsp_residual_s8_block,
     * its outputs are a multiple of 4, and its block_words count what is kept behind the block. */
    k_dsp_conv_s8_t conv;
    k_dsp_residual_s8_run *run;
    k_dsp_pairs_s8_function *multiply;
    k_dsp_add_s8_function *add;
    k_dsp_add_s8_t sum;   /* of three pixels; its first operand is the convolution's output */
    k_dsp_add_s8_t last;  /* of the pixels that the last block does not compute again */
    int32_t skip_bytes;   /* of the pixels that it does */
    int32_t behind_words; /* from the block to what is kept: the pixels left, the block's outputs */
} k_dsp_residual_s8_t;

/* y: the other operand, [out_h][out_w][outputs], becomes the sum; aligned to 4. x, scratch and y must not
 * overlap. */
void k_dsp_residual_s8(const k_dsp_residual_s8_t *layer, const int8_t *x, int32_t *scratch, int8_t *y);

/* One block; pairs: those of a k_dsp_residual_s8_t. What is kept lies behind the block. */
k_dsp_pairs_s8_function k_dsp_residual_s8_block;

#endif
