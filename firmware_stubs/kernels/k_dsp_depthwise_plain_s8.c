/* SPDX-License-Identifier: 0BSD */
#include "k_dsp_depthwise_plain_s8.h"

#include "k_dsp.h"

/* The taps of a window that lie inside the image: from (top, left) to (bottom, right), those not included. */
typedef struct {
    int32_t top;
    int32_t bottom;
    int32_t left;
    int32_t right;
} window_t;

/* The sum over a window whose first tap would be at x. */
static uint32_t window_sum(
    const k_dsp_depthwise_s8_t *layer, const window_t *window, const int8_t *x, const int8_t *w, uint32_t sum)
{
    K_ROLLED
    for (int32_t row = window->top; row < window->bottom; row++) {
        const int8_t *line = x + 4 * row * layer->in_w;
        K_ROLLED
        for (int32_t column = window->left; column < window->right; column++) {
            sum = k_mac(sum, line[4 * column] - layer->in_zero_point, w[3 * row + column]);
        }
    }
    return sum;
}

/* One channel of the plane. */
static K_NOINLINE void channel_outputs(const k_dsp_depthwise_s8_t *layer, const int8_t *x, int8_t *y, const int8_t *weights)
{
    uint32_t bias = k_word(weights + 10);
    int32_t multiplier = (int32_t)k_word(weights + 14);
    uint32_t less_one = (uint32_t)weights[9] & 31u;

    for (int32_t row = 0; row < layer->out_h; row++) {
        int32_t top = row * layer->stride - layer->pad_top;
        for (int32_t column = 0; column < layer->out_w; column++) {
            int32_t left = column * layer->stride - layer->pad_left;
            window_t window = {
                k_max(-top, 0), k_min(layer->in_h - top, 3), k_max(-left, 0), k_min(layer->in_w - left, 3)};
            uint32_t sum = window_sum(layer, &window, x + 4 * (top * layer->in_w + left), weights, bias);
            *y = k_round_twice(sum, multiplier, less_one, layer->zero);
            y += 4;
        }
    }
}

void k_dsp_depthwise_plain_s8(const k_dsp_depthwise_s8_t *layer, const int8_t *x, int32_t *scratch, int8_t *y,
                              const int8_t *weights)
{
    (void)scratch;
    K_ROLLED
    for (int32_t channel = 0; channel < 4; channel++) {
        channel_outputs(layer, x + channel, y + channel, weights + 18 * channel);
    }
}
