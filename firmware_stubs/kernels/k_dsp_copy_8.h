/* SPDX-License-Identifier: 0BSD */
/* Copies bytes between areas that do not overlap; fastest where both begin at a multiple of 4. */
#ifndef K_DSP_COPY_8_H
#define K_DSP_COPY_8_H

#include <stdint.h>

typedef void k_dsp_copy_8_function(const int8_t *from, int8_t *to, int32_t bytes);

k_dsp_copy_8_function k_dsp_copy_8;

#endif
