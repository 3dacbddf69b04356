/* SPDX-License-Identifier: 0BSD */
/* CONV_2D, int8, NHWC, filter 3 x 3, stride 1, dilation 1, by Winograd's F(2 x 2, 3 x 3), exact in integers.
 *
 * A tile of 4 x 4 inputs gives 2 x 2 outputs in 16 multiplications instead of 36. With G doubled in both
 * directions its halves go: weights (2G) g (2G)^T are whole numbers of int16, inputs B^T d B of int16 within
 * -512 to 512, and A^T (.) A is four times the sum. Sums may wrap on the way: the end is right modulo 2^32.
 *
 * Two output rows at a time: the strip holds their four input rows, transformed downwards; a block holds two
 * tiles, transformed sideways too. x, scratch and y must not overlap. */
#ifndef K_DSP_WINOGRAD_S8_H
#define K_DSP_WINOGRAD_S8_H

#include <stdint.h>

typedef struct k_dsp_winograd_s8 k_dsp_winograd_s8_t;

/* rows: four rows of `read` pixels; strip: where the first of their columns begins. */
typedef void k_dsp_winograd_strip_s8_function(
    const k_dsp_winograd_s8_t *layer, const int8_t *const *rows, uint32_t *strip);
/* strip: where the first of six columns begins, of the first four channels. */
typedef void k_dsp_winograd_tiles_s8_function(
    const k_dsp_winograd_s8_t *layer, const uint32_t *strip, uint32_t *block);
/* y: the first of 2 x 4 output pixels. Also writes to the block's free words. */
typedef void k_dsp_winograd_multiply_s8_function(const k_dsp_winograd_s8_t *layer, uint32_t *block, int8_t *y);

struct k_dsp_winograd_s8 {
    /* For each pair of output channels A, B and each of the four rows of a tile: two words, the biases (those
     * of row 1; else 0), and for its columns 1, 2, 3, 0 and each four inputs the words A 0 2, A 1 3, B 0 2,
     * B 1 3 (pairs of int16). Row 3 and column 3 have their sign changed. Everything carries a factor, at
     * least 4. Then, with shift > 0, m A, m B, c A, c B (see proved rounding in docs/kernels.md), else
     * multiplier A, multiplier B, and a word with (right shift - 1) of A in its lowest byte, of B in the next. */
    const uint32_t *weights;
    int32_t out_row_bytes;
    int32_t zero;  /* 2 * output zero point + 1 */
    int32_t shift; /* of the proved rounding; 0: the factor is 4, rounded twice as TFLite does */
    int32_t channels; /* a multiple of 4 */
    int32_t outputs;  /* even */
    int32_t columns;  /* out_w + 2, at least 6: those of the strip */
    int32_t read;     /* those of them that come from the image */
    int32_t in_w;
    int32_t in_h;
    int32_t out_w;
    int32_t out_h; /* at least 2 */
    int32_t pad_left;
    int32_t pad_top;
    int32_t in_zero_point;
    int32_t block_words;
    k_dsp_winograd_strip_s8_function *strip;
    k_dsp_winograd_tiles_s8_function *tiles;
    k_dsp_winograd_multiply_s8_function *multiply;
};

/* Words of the strip: [channels / 4][4 rows][columns][pairs 0 2, 1 3]. */
#define K_DSP_WINOGRAD_S8_STRIP_WORDS(channels, columns) (2 * (channels) * (columns))
/* Words of the block: for each of four rows, columns 1, 2, 3 of both tiles ([channels / 4][2 tiles][2]), four
 * free words, column 0, and four free words. A row of zero points must also fit. */
#define K_DSP_WINOGRAD_S8_BLOCK_WORDS(channels) (4 * (4 * (channels) + 8))

void k_dsp_winograd_s8(const k_dsp_winograd_s8_t *layer, const int8_t *x, int32_t *scratch, int8_t *y);

#endif
