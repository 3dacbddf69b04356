/* SPDX-License-Identifier: 0BSD */
/* A stage that is k_dsp_depthwise_s8: the same leaves, on the rows of a window of planes. */
#ifndef K_STREAM_DEPTHWISE_S8_H
#define K_STREAM_DEPTHWISE_S8_H

#include "k_dsp_depthwise_s8.h"
#include "k_stream.h"

typedef struct {
    k_stream_stage_t stage;
    int32_t scratch; /* word of the arena */
    k_dsp_depthwise_s8_t planes;
} k_stream_depthwise_s8_t;

void k_stream_depthwise_s8(const k_stream_depthwise_s8_t *layer, int32_t *words);

#endif
