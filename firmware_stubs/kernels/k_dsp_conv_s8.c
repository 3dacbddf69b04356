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
            k_copy(x + r * layer->in_row_bytes, middle, layer->in_row_bytes);
            k_fill(middle + layer->in_row_bytes, zero, after);
        }
        band += layer->pitch_bytes;
    }
}

void k_dsp_conv_s8(const k_dsp_conv_s8_t *layer, const int8_t *x, int32_t *scratch, int8_t *y)
{
    uint32_t *block = (uint32_t *)(void *)scratch;
    int8_t *band = (int8_t *)(scratch + layer->block_words);
    const int8_t *source = layer->band_rows > 0 ? band : x;
    int32_t held = layer->band_rows > 0 ? -1 : 0; /* the output row that `source` begins with */
    int32_t row = 0;
    int32_t column = 0;

    for (int32_t start = 0; start < layer->pixels; start += 3) {
        const int8_t *pixels[3];
        int32_t back = start + 3 - layer->pixels;
        if (back > 0) { /* the last block begins earlier and computes some pixels again */
            start -= back;
            for (column -= back; column < 0; column += layer->out_w) {
                row--;
            }
        }
        if (layer->band_rows > 0) {
            int32_t last = row + (column + 2 >= layer->out_w) + (column + 2 >= 2 * layer->out_w);
            if (held < 0 || row < held || last >= held + layer->band_rows) {
                fill_band(layer, x, row, band);
                held = row;
            }
        }
        for (int32_t i = 0; i < 3; i++) {
            pixels[i] = source + (row - held) * layer->row_step_bytes + column * layer->step_bytes;
            if (++column == layer->out_w) {
                column = 0;
                row++;
            }
        }
        layer->gather(&layer->widen, pixels, block);
        layer->multiply(&layer->pairs, block, y + start * k_dsp_pairs_s8_pixel_bytes(&layer->pairs));
    }
}
