/* SPDX-License-Identifier: 0BSD */
/* Weights of two channels from indices of 2 bits to the words of k_dsp_pairs_s8. */
#ifndef K_DSP_UNPACK2_S8_H
#define K_DSP_UNPACK2_S8_H

#include <stdint.h>

/* indices: a byte for inputs 0 and 2 of each four, one for inputs 1 and 3: first channel, second channel, the same of
 * the later input, from the low bits up. table: 256 words, what a byte stands for. words: two for each four
 * inputs; fours >= 1. */
typedef void k_dsp_unpack2_s8_function(const uint8_t *indices, const uint32_t *table, uint32_t *words, int32_t fours);

k_dsp_unpack2_s8_function k_dsp_unpack2_s8;

#endif
