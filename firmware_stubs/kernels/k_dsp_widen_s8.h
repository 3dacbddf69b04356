/* SPDX-License-Identifier: 0BSD */
/* The windows of three pixels from int8 to the block of int16 pairs that k_dsp_pairs_s8 reads. */
#ifndef K_DSP_WIDEN_S8_H
#define K_DSP_WIDEN_S8_H

#include <stdint.h>

typedef struct {
    int32_t words;      /* whole words in a row of the window */
    int32_t rows;       /* rows of a window */
    int32_t step_bytes; /* from one row's start to the next */
    int32_t leftover;   /* bytes of a row behind its words, 0 to 3 */
} k_dsp_widen_s8_t;

/* pixels: where each window begins. The words of all rows come first, then the leftover bytes of all rows, four
 * together; what is missing in the last four meets zero weights (its value is any). */
typedef void k_dsp_widen_s8_function(
    const k_dsp_widen_s8_t *layer, const int8_t *const *pixels, uint32_t *block);

k_dsp_widen_s8_function k_dsp_widen_s8;

#endif
