/* SPDX-License-Identifier: 0BSD */
#include "k_dsp_copy_8.h"

#include "k_common.h"

void k_dsp_copy_8(const int8_t *from, int8_t *to, int32_t bytes)
{
    k_copy(from, to, bytes);
}
