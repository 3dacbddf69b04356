/* SPDX-License-Identifier: 0BSD */
/* CONV_2D whose weights are indices into small tables: some channels at a time are unpacked into scratch as
 * k_dsp_pairs_s8 reads them, and run over all pixels. x, scratch and y must not overlap. */
#ifndef K_DSP_PACKED_S8_H
#define K_DSP_PACKED_S8_H

#include <stdint.h>

#include "k_dsp_conv_s8.h"

typedef void k_dsp_packed_s8_unpack(const uint8_t *indices, const uint32_t *table, uint32_t *words, int32_t fours);
typedef void k_dsp_packed_s8_run(const k_dsp_conv_s8_t *layer, const int8_t *x, int32_t *scratch, int8_t *y);

typedef struct {
    k_dsp_conv_s8_t conv;           /* pairs.weights and pairs.outputs are not read */
    k_dsp_packed_s8_run *run;       /* k_dsp_conv_s8 or k_dsp_pointwise_s8 */
    k_dsp_packed_s8_unpack *unpack; /* k_dsp_unpack4_s8 or k_dsp_unpack2_s8 */
    const uint8_t *indices;         /* pair by pair as `unpack` reads them, in the order of conv.pairs */
    const uint32_t *sides; /* for each pair the words before its weights and behind them, see k_dsp_pairs_s8_t */
    const int8_t *tables;  /* [tables][16], with indices of 2 bits [tables][4] */
    const uint8_t *channel_tables; /* [outputs] in the order of pairs, or 0: one table for all */
    int32_t outputs;
    int32_t chunk;      /* channels that are unpacked together: even, in planes a multiple of 4 */
    int32_t bits;       /* 4 or 2 */
    int32_t free_words; /* of scratch: what `run` and a table of 256 words need; behind them the weights */
} k_dsp_packed_s8_t;

#define K_DSP_PACKED_S8_TABLE_WORDS 256

void k_dsp_packed_s8(const k_dsp_packed_s8_t *layer, const int8_t *x, int32_t *scratch, int8_t *y);

#endif
