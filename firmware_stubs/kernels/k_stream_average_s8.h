/* SPDX-License-Identifier: 0BSD */
/* A stage that is k_dsp_average_s8: the sums of four channels are kept while rows come in.
 *
 * Its output counts the rows that went in, and its stage has a filter and a stride of 1: the last of them
 * writes the means. */
#ifndef K_STREAM_AVERAGE_S8_H
#define K_STREAM_AVERAGE_S8_H

#include "k_dsp_average_s8.h"
#include "k_stream.h"

typedef struct {
    k_stream_stage_t stage;
    int32_t sums;  /* word of the arena: two words for four channels */
    int32_t out_w; /* pixels of a row */
    k_dsp_average_s8_t average;
} k_stream_average_s8_t;

void k_stream_average_s8(const k_stream_average_s8_t *layer, int32_t *words);

#endif
