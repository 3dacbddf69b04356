/* SPDX-License-Identifier: 0BSD */
/* The sums of k_dsp_average_s8, in C: see there. */
#ifndef K_DSP_AVERAGE_LEAF_S8_H
#define K_DSP_AVERAGE_LEAF_S8_H

#include "k_dsp_average_s8.h"

#endif
