/* SPDX-License-Identifier: 0BSD */
/* See k_table_8.h. */
#include "k_table_8.h"

void k_table_8(const uint8_t table[256], const uint8_t *x, int32_t elements, uint8_t *y)
{
    for (int32_t i = 0; i < elements; i++) {
        y[i] = table[x[i]];
    }
}
