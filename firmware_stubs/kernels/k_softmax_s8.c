/* SPDX-License-Identifier: 0BSD */
/* See k_softmax_s8.h. */
#include "k_softmax_s8.h"

#include "k_common.h"

#define SUM_INTEGER_BITS 12
#define Q29_48_OVER_17 1515870810
#define Q29_MINUS_32_OVER_17 (-1010580540)

static int32_t exp_of(const k_softmax_s8_t *layer, int32_t difference)
{
    return difference < layer->exps_length ? layer->exps[difference] : 0;
}

/* 1 / half in Q0.31 with one bit to spare, for half in [1/2, 1) in Q0.31: three Newton steps. */
static int32_t reciprocal(int32_t half)
{
    int32_t x = Q29_48_OVER_17 + k_doubling_high_mul(half, Q29_MINUS_32_OVER_17);

    K_ROLLED
    for (int32_t step = 0; step < 3; step++) {
        int32_t error = (1 << 29) - k_doubling_high_mul(half, x);
        x += k_doubling_high_mul(x, error) * 4;
    }
    return x >= (1 << 30) ? INT32_MAX : x * 2;
}

static void row(const k_softmax_s8_t *layer, const int8_t *x, int8_t *y)
{
    int32_t largest = -128;
    uint32_t sum = 0;
    int32_t headroom = 0;
    int32_t scale;
    int32_t exponent;

    K_ROLLED
    for (int32_t i = 0; i < layer->depth; i++) {
        largest = k_max(largest, x[i]);
    }
    K_ROLLED
    for (int32_t i = 0; i < layer->depth; i++) {
        sum += (uint32_t)k_rounding_divide(exp_of(layer, largest - x[i]), SUM_INTEGER_BITS);
    }
    while ((sum & 0x80000000U) == 0U) { /* sum is never 0: it holds exps[0] */
        sum <<= 1;
        headroom++;
    }
    scale = reciprocal((int32_t)(sum >> 1));
    exponent = SUM_INTEGER_BITS - headroom + 31 - 8;
    K_ROLLED
    for (int32_t i = 0; i < layer->depth; i++) {
        int32_t product = k_doubling_high_mul(scale, exp_of(layer, largest - x[i]));
        int32_t value = exponent > 31 ? 0 : k_rounding_divide(product, exponent);
        y[i] = k_clamp(value - 128, -128, 127);
    }
}

void k_softmax_s8(const k_softmax_s8_t *layer, const int8_t *x, int8_t *y)
{
    for (int32_t i = 0; i < layer->rows; i++) {
        row(layer, x, y);
        x += layer->depth;
        y += layer->depth;
    }
}
