/* SPDX-License-Identifier: 0BSD */
/* One plane of k_dsp_depthwise_s8 in plain C, for channels that have no folded rounding: the tenth byte of each
 * holds the right shift less one (in its low five bits), the bias is without the zero point's share, and
 * outputs are rounded twice as TFLite does. */
#ifndef K_DSP_DEPTHWISE_PLAIN_S8_H
#define K_DSP_DEPTHWISE_PLAIN_S8_H

#include "k_dsp_depthwise_s8.h"

k_dsp_depthwise_leaf_s8_function k_dsp_depthwise_plain_s8;

#endif
