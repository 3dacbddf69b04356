/* SPDX-License-Identifier: 0BSD */
/* Weights of two channels from indices of 4 bits to the words of k_dsp_pairs_s8. */
#ifndef K_DSP_UNPACK4_S8_H
#define K_DSP_UNPACK4_S8_H

#include <stdint.h>

/* indices: a byte an input, the first channel's index in its low bits. table: 256 words, the halfword that a byte
 * stands for in the low half of each, 0 in the high half. words: two for each four inputs; fours >= 1. */
typedef void k_dsp_unpack4_s8_function(const uint8_t *indices, const uint32_t *table, uint32_t *words, int32_t fours);

k_dsp_unpack4_s8_function k_dsp_unpack4_s8;

#endif
