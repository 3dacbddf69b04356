/* SPDX-License-Identifier: 0BSD */
/* One part of a CONCATENATION: rows of bytes into wider rows. x and y must not overlap; no alignment;
 * no scratch. */
#ifndef K_COPY_ROWS_8_H
#define K_COPY_ROWS_8_H

#include <stdint.h>

/* x: [rows][row_bytes]; row r goes to y + r * y_step. */
void k_copy_rows_8(const int8_t *x, int32_t rows, int32_t row_bytes, int32_t y_step, int8_t *y);

#endif
