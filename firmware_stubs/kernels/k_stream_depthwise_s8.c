/* SPDX-License-Identifier: 0BSD */
#include "k_stream_depthwise_s8.h"

#include "k_dsp.h"

#define CHANNEL_BYTES 18
#define WEIGHT_WORDS 14

static void fill(int32_t *to, int32_t value, int32_t words)
{
    K_ROLLED
    for (; words > 0; words--) {
        *to++ = value;
    }
}

/* The zero point: a row of it, which the leaf reads above and below the image, and the columns beside it. */
static void fill_padding(const k_dsp_depthwise_s8_t *part, int32_t *scratch)
{
    int32_t byte = part->in_zero_point;
    int32_t pair = (int32_t)k_pair(256 * byte, 256 * byte);
    int32_t *columns = scratch + part->in_w;
    int32_t right = part->pad_left + part->read;

    fill(scratch, (int32_t)((uint32_t)(uint8_t)(int8_t)byte * 0x01010101u), part->in_w);
    K_ROLLED
    for (int32_t channel = 0; channel < 4; channel++) {
        columns += WEIGHT_WORDS;
        fill(columns, pair, 2 * part->pad_left);
        fill(columns + 2 * right, pair, 2 * (part->columns - right));
        columns += 2 * part->columns;
    }
}

void k_stream_depthwise_s8(const k_stream_depthwise_s8_t *layer, int32_t *words)
{
    k_stream_run_t run;

    if (k_stream_begin(&layer->stage, words, &run) != 0) {
        /* Field by field: a copy of the whole would call memcpy. */
        const k_dsp_depthwise_s8_t *whole = &layer->planes;
        k_dsp_depthwise_s8_t part;
        const int8_t *weights = whole->weights;
        const int8_t *x = run.x;
        int8_t *y = run.y;
        part.in_w = whole->in_w;
        part.in_h = run.in_rows;
        part.out_w = whole->out_w;
        part.out_h = run.rows;
        part.pad_top = run.pad_top;
        part.pad_left = whole->pad_left;
        part.columns = whole->columns;
        part.turns = whole->turns;
        part.read = whole->read;
        part.stride = whole->stride;
        part.channels = whole->channels;
        part.in_zero_point = whole->in_zero_point;
        part.shift = whole->shift;
        part.zero = whole->zero;
        part.weights = weights;
        part.leaf = whole->leaf;
        part.plain = whole->plain;
        fill_padding(&part, words + layer->scratch);
        for (int32_t channel = 0; channel < part.channels; channel += 4) {
            (weights[9] < 0 ? part.plain : part.leaf)(&part, x, words + layer->scratch, y, weights);
            weights += 4 * CHANNEL_BYTES;
            x += layer->stage.in->piece_bytes;
            y += layer->stage.out->piece_bytes;
        }
        k_stream_end(&layer->stage, words, &run);
    }
}
