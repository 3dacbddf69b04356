/* SPDX-License-Identifier: 0BSD */
/* The leaf `tiles` of k_dsp_winograd_s8, in C: see there. */
#ifndef K_DSP_WINOGRAD_TILES_S8_H
#define K_DSP_WINOGRAD_TILES_S8_H

#include "k_dsp_winograd_s8.h"

k_dsp_winograd_tiles_s8_function k_dsp_winograd_tiles_s8;

#endif
