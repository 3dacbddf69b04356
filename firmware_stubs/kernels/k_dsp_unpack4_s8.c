/* SPDX-License-Identifier: 0BSD */
#include "k_dsp_unpack4_s8.h"

void k_dsp_unpack4_s8(const uint8_t *indices, const uint32_t *table, uint32_t *words, int32_t fours)
{
    for (; fours > 0; fours--) {
        words[0] = table[indices[0]] | table[indices[2]] << 16;
        words[1] = table[indices[1]] | table[indices[3]] << 16;
        indices += 4;
        words += 2;
    }
}
