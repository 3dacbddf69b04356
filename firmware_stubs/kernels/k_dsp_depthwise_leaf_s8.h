/* SPDX-License-Identifier: 0BSD */
/* One plane of k_dsp_depthwise_s8, in C: see there. */
#ifndef K_DSP_DEPTHWISE_LEAF_S8_H
#define K_DSP_DEPTHWISE_LEAF_S8_H

#include "k_dsp_depthwise_s8.h"

#endif
