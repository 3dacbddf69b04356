/* SPDX-License-Identifier: 0BSD */
/* The leaf `strip` of k_dsp_winograd_s8, in C: see there. */
#ifndef K_DSP_WINOGRAD_STRIP_S8_H
#define K_DSP_WINOGRAD_STRIP_S8_H

#include "k_dsp_winograd_s8.h"

k_dsp_winograd_strip_s8_function k_dsp_winograd_strip_s8;

#endif
