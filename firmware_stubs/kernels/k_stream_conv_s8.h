/* SPDX-License-Identifier: 0BSD */
/* A stage that is k_dsp_conv_s8 or k_dsp_pointwise_s8. */
#ifndef K_STREAM_CONV_S8_H
#define K_STREAM_CONV_S8_H

#include "k_dsp_conv_s8.h"
#include "k_stream.h"

typedef void k_stream_conv_s8_run(const k_dsp_conv_s8_t *layer, const int8_t *x, int32_t *scratch, int8_t *y);

typedef struct {
    k_stream_stage_t stage;
    int32_t scratch; /* word of the arena */
    k_stream_conv_s8_run *run;
    k_dsp_conv_s8_t conv; /* rows, paddings and pixels are those of a run */
} k_stream_conv_s8_t;

void k_stream_conv_s8(const k_stream_conv_s8_t *layer, int32_t *words);

#endif
