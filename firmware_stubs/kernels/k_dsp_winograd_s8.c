/* SPDX-License-Identifier: 0BSD */
#include "k_dsp_winograd_s8.h"

#include "k_dsp.h"

/* The columns beside the image: of four zero points only row 1, a sum, is not 0. */
static void fill_columns(const k_dsp_winograd_s8_t *layer, uint32_t *strip)
{
    uint32_t twice = k_pair(2 * layer->in_zero_point, 2 * layer->in_zero_point);

    for (int32_t plane = 0; plane < layer->channels; plane++) { /* four rows of each four channels */
        for (int32_t column = 0; column < layer->columns; column++) {
            if (column < layer->pad_left || column >= layer->pad_left + layer->read) {
                strip[2 * column] = plane % 4 == 1 ? twice : 0;
                strip[2 * column + 1] = strip[2 * column];
            }
        }
        strip += 2 * layer->columns;
    }
}

/* The four input rows of output rows `row` and row + 1; those outside the image are made of zero points. */
static void fill_strip(
    const k_dsp_winograd_s8_t *layer, const int8_t *x, int32_t row, int8_t *zeros, uint32_t *strip)
{
    int32_t row_bytes = layer->in_w * layer->channels;
    const int8_t *rows[4];

    for (int32_t i = 0; i < 4; i++) {
        int32_t at = row - layer->pad_top + i;
        rows[i] = x + at * row_bytes;
        if (at < 0 || at >= layer->in_h) {
            k_fill(zeros, (int8_t)layer->in_zero_point, row_bytes);
            rows[i] = zeros;
        }
    }
    layer->strip(layer, rows, strip + 2 * layer->pad_left);
}

void k_dsp_winograd_s8(const k_dsp_winograd_s8_t *layer, const int8_t *x, int32_t *scratch, int8_t *y)
{
    uint32_t *block = (uint32_t *)(void *)scratch;
    uint32_t *strip = block + layer->block_words;
    int32_t last_row = layer->out_h - 2;
    int32_t last_column = layer->out_w - 4;

    fill_columns(layer, strip);
    for (int32_t row = 0; row < layer->out_h; row += 2) {
        row = k_min(row, last_row); /* the last two rows, or columns, may be computed again */
        fill_strip(layer, x, row, (int8_t *)block, strip);
        for (int32_t column = 0; column < layer->out_w; column += 4) {
            column = k_min(column, last_column);
            layer->tiles(layer, strip + 2 * column, block);
            layer->multiply(layer, block, y + row * layer->out_row_bytes + column * layer->outputs);
        }
    }
}
