/* SPDX-License-Identifier: 0BSD */
/* A stage that is k_dsp_add_s8: two tensors of the same rows. */
#ifndef K_STREAM_ADD_S8_H
#define K_STREAM_ADD_S8_H

#include "k_dsp_add_s8.h"
#include "k_stream.h"

typedef struct {
    k_stream_stage_t stage;
    k_dsp_add_s8_function *leaf;
    k_dsp_add_s8_t sum; /* elements: those of a row */
} k_stream_add_s8_t;

void k_stream_add_s8(const k_stream_add_s8_t *layer, int32_t *words);

#endif
