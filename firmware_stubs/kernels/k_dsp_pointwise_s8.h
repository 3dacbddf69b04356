/* SPDX-License-Identifier: 0BSD */
/* CONV_2D with a 1 x 1 filter and stride 1: k_dsp_conv_s8 without rows, columns and band; step_bytes is that from
 * one pixel to the next. x, scratch and y must not overlap. */
#ifndef K_DSP_POINTWISE_S8_H
#define K_DSP_POINTWISE_S8_H

#include "k_dsp_conv_s8.h"

void k_dsp_pointwise_s8(const k_dsp_conv_s8_t *layer, const int8_t *x, int32_t *scratch, int8_t *y);

#endif
