/* SPDX-License-Identifier: 0BSD */
/* ADD and SUB of two tensors of one shape, int8: two multiplications and one rounding an element, which the
 * generator has compared with TFLite's for all 65,536 pairs of inputs. */
#ifndef K_DSP_ADD_S8_H
#define K_DSP_ADD_S8_H

#include <stdint.h>

typedef struct {
    int32_t a_multiplier;
    int32_t b_multiplier;
    int32_t constant;
    int32_t elements; /* a multiple of 4 */
    int32_t shift;
} k_dsp_add_s8_t;

/* y may be a or b. */
typedef void k_dsp_add_s8_function(const k_dsp_add_s8_t *layer, const int8_t *a, const int8_t *b, int8_t *y);

k_dsp_add_s8_function k_dsp_add_s8;

#endif
