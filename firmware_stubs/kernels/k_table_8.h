/* SPDX-License-Identifier: 0BSD */
/* Any function of one byte: RELU, RELU6, LOGISTIC, TANH, QUANTIZE between int8 and uint8.
 *
 * y[i] = table[x[i]]; bytes are taken as unsigned, so an int8 value v is found at table[v & 255].
 * y may be the same as x, else they must not overlap. No alignment; no scratch. */
#ifndef K_TABLE_8_H
#define K_TABLE_8_H

#include <stdint.h>

void k_table_8(const uint8_t table[256], const uint8_t *x, int32_t elements, uint8_t *y);

#endif
