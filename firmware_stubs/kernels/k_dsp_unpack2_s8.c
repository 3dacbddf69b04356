/* SPDX-License-Identifier: 0BSD */
#include "k_dsp_unpack2_s8.h"

void k_dsp_unpack2_s8(const uint8_t *indices, const uint32_t *table, uint32_t *words, int32_t fours)
{
    for (; fours > 0; fours--) {
        *words++ = table[*indices++];
        *words++ = table[*indices++];
    }
}
