/* SPDX-License-Identifier: 0BSD */
/* See k_copy_rows_8.h. */
#include "k_copy_rows_8.h"

#include "k_common.h"

void k_copy_rows_8(const int8_t *x, int32_t rows, int32_t row_bytes, int32_t y_step, int8_t *y)
{
    for (int32_t row = 0; row < rows; row++) {
        k_copy(x + row * row_bytes, y + row * y_step, row_bytes);
    }
}
