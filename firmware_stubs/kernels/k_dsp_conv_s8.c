/* SPDX-License-Identifier: 0BSD */
#include "k_dsp_conv_s8.h"

#include "k_common.h"

/* The input rows that output rows `row` and its followers need, padded. */
static void fill_band(const k_dsp_conv_s8_t *layer, const int8_t *x, int32_t row, int8_t *band)
{
    int32_t rows = k_min(layer->band_rows, layer->out_h - row);
    int32_t first = row * layer->stride_h - layer->pad_top;
    int8_t zero = (int8_t)layer->in_zero_point;
    int32_t after = layer->pitch_bytes - layer->pad_left_bytes - layer->in_row_bytes;

    for (int32_t r = first; r < first + (rows - 1) * layer->stride_h + layer->filter_h; r++) {
        if (r < 0 || r >= layer->in_h) {
            k_fill(band, zero, layer->pitch_bytes);
        } else {
            int8_t *middle = band + layer->pad_left_bytes;
            k_fill(band, zero, layer->pad_left_bytes);
            layer->copy(x + r * layer->in_row_bytes, middle, layer->in_row_bytes);
            k_fill(middle + layer->in_row_bytes, zero, after);
        }
        band += layer->pitch_bytes;
    }
}

/* Blocks of three pixels that follow each other in a row. */
static K_NOINLINE void run_row(
    const k_dsp_conv_s8_t *layer, const int8_t *window, uint32_t *block, int8_t *y, int32_t blocks)
{
    int32_t step = layer->step_bytes;
    int32_t out_step = 3 * k_dsp_pairs_s8_pixel_bytes(&layer->pairs);

    for (; blocks > 0; blocks--) {
        const int8_t *pixels[3];
        pixels[0] = window;
        window += step;
        pixels[1] = window;
        window += step;
        pixels[2] = window;
        window += step;
        layer->gather_row(&layer->widen, pixels, block);
        layer->multiply(&layer->pairs, block, y);
        y += out_step;
    }
}

/* One block that begins at the end of a row and goes on in the next (or the one behind). */
static K_NOINLINE void run_seam(
    const k_dsp_conv_s8_t *layer, const int8_t *window, int32_t column, uint32_t *block, int8_t *y)
{
    const int8_t *pixels[3];

    for (int32_t i = 0; i < 3; i++) {
        pixels[i] = window;
        window += layer->step_bytes;
        if (++column == layer->out_w) {
            column = 0;
            window += layer->row_step_bytes - layer->out_w * layer->step_bytes;
        }
    }
    layer->gather(&layer->widen, pixels, block);
    layer->multiply(&layer->pairs, block, y);
}

void k_dsp_conv_s8(const k_dsp_conv_s8_t *layer, const int8_t *x, int32_t *scratch, int8_t *y)
{
    uint32_t *block = (uint32_t *)(void *)scratch;
    int8_t *band = (int8_t *)(scratch + layer->block_words);
    const int8_t *source = layer->band_rows > 0 ? band : x;
    int32_t pixel_bytes = k_dsp_pairs_s8_pixel_bytes(&layer->pairs);
    int32_t reach = layer->out_w == 1 ? 3 : 2;    /* rows that a block may touch */
    int32_t held = layer->band_rows > 0 ? -1 : 0; /* the output row that `source` begins with */
    int32_t row = 0;
    int32_t column = 0;
    int32_t left = layer->pixels;

    while (left > 0) {
        const int8_t *window;
        int32_t blocks;
        if (left < 3) { /* the last block begins earlier and computes some pixels again */
            for (column -= 3 - left; column < 0; column += layer->out_w) {
                row--;
            }
            y -= (3 - left) * pixel_bytes;
            left = 3;
        }
        if (layer->band_rows > 0) {
            int32_t last = k_min(row + reach, layer->out_h);
            if (held < 0 || row < held || last > held + layer->band_rows) {
                fill_band(layer, x, row, band);
                held = row;
            }
        }
        window = source + (row - held) * layer->row_step_bytes + column * layer->step_bytes;
        blocks = (layer->out_w - column) / 3;
        if (blocks > 0) {
            run_row(layer, window, block, y, blocks);
        } else {
            run_seam(layer, window, column, block, y);
            blocks = 1;
        }
        for (column += 3 * blocks; column >= layer->out_w; column -= layer->out_w) {
            row++;
        }
        left -= 3 * blocks;
        y += 3 * blocks * pixel_bytes;
    }
}
