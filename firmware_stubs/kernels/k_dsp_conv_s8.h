/* SPDX-License-Identifier: 0BSD */
/* CONV_2D, int8, NHWC, dilation 1: blocks of three pixels through k_dsp_widen_s8 and k_dsp_pairs_s8.
 *
 * Without padding the windows lie in the image itself. With padding, the input rows of some output rows
 * are kept as a band in scratch, with the zero point around them. x, scratch and y must not overlap. */
#ifndef K_DSP_CONV_S8_H
#define K_DSP_CONV_S8_H

#include <stdint.h>

#include "k_dsp_copy_8.h"
#include "k_dsp_pairs_s8.h"
#include "k_dsp_widen_s8.h"

typedef struct {
    k_dsp_pairs_s8_t pairs;
    k_dsp_widen_s8_t widen;
    k_dsp_pairs_s8_function *multiply;
    k_dsp_widen_s8_function *gather;
    k_dsp_widen_s8_function *gather_row; /* for three pixels of one row; may be the same */
    int32_t block_words; /* depth * 3 / 2 */
    int32_t pixels;      /* out_h * out_w, at least 3 */
    int32_t out_h;
    int32_t out_w;
    int32_t step_bytes;     /* from a window to that of the next column */
    int32_t row_step_bytes; /* from a window to that of the next row */
    /* The band; band_rows is 0 where there is none. */
    int32_t band_rows; /* output rows that it serves, at least 3 (or out_h) */
    k_dsp_copy_8_function *copy;
    int32_t in_h;
    int32_t in_row_bytes;
    int32_t pitch_bytes; /* of a row in the band */
    int32_t pad_top;
    int32_t pad_left_bytes;
    int32_t filter_h;
    int32_t stride_h;
    int32_t in_zero_point;
} k_dsp_conv_s8_t;

/* x: [in_h][in_w][channels], y: [out_h][out_w][outputs]; scratch: the block and the band. */
void k_dsp_conv_s8(const k_dsp_conv_s8_t *layer, const int8_t *x, int32_t *scratch, int8_t *y);

#endif
