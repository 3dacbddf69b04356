/* SPDX-License-Identifier: 0BSD */
/* What the twins of the generated assembly share: the core's DSP instructions in portable C.
 * Each function has the instruction's name and gives its result, bit for bit. */
#ifndef K_DSP_H
#define K_DSP_H

#include "k_common.h"

/* Four bytes at any address as one word, the first in the lowest bits. */
static inline uint32_t k_word(const int8_t *p)
{
    return (uint32_t)(uint8_t)p[0] | (uint32_t)(uint8_t)p[1] << 8 | (uint32_t)(uint8_t)p[2] << 16 |
           (uint32_t)(uint8_t)p[3] << 24;
}

/* Two numbers as the halves of a word. */
static inline uint32_t k_pair(int32_t low, int32_t high)
{
    return ((uint32_t)low & 0xffffu) | (uint32_t)high << 16;
}

static inline int32_t k_low(uint32_t word)
{
    return (int16_t)(uint16_t)word;
}

static inline int32_t k_high(uint32_t word)
{
    return (int16_t)(uint16_t)(word >> 16);
}

/* Bytes 0 and 2 as halves; of word >> 8: bytes 1 and 3. */
static inline uint32_t k_sxtb16(uint32_t word)
{
    return k_pair((int8_t)(uint8_t)word, (int8_t)(uint8_t)(word >> 16));
}

static inline uint32_t k_sadd16(uint32_t a, uint32_t b)
{
    return k_pair(k_low(a) + k_low(b), k_high(a) + k_high(b));
}

static inline uint32_t k_ssub16(uint32_t a, uint32_t b)
{
    return k_pair(k_low(a) - k_low(b), k_high(a) - k_high(b));
}

static inline uint32_t k_smlad(uint32_t a, uint32_t b, uint32_t sum)
{
    return sum + (uint32_t)(k_low(a) * k_low(b)) + (uint32_t)(k_high(a) * k_high(b));
}

/* The high word of a * b + (sum << 32). */
static inline int32_t k_smmla(int32_t a, int32_t b, int32_t sum)
{
    return (int32_t)((uint32_t)(((int64_t)a * b) >> 32) + (uint32_t)sum);
}

/* The same, rounded to nearest. */
static inline int32_t k_smmlar(int32_t a, int32_t b, int32_t sum)
{
    return (int32_t)((uint32_t)(((int64_t)a * b + ((int64_t)1 << 31)) >> 32) + (uint32_t)sum);
}

/* Bits 16 to 47 of a * half, added to sum (SMLAWB, SMLAWT). */
static inline int32_t k_smlaw(int32_t a, int32_t half, int32_t sum)
{
    return (int32_t)((uint32_t)(((int64_t)a * half) >> 16) + (uint32_t)sum);
}

static inline int8_t k_ssat8(int32_t value)
{
    return k_clamp(value, -128, 127);
}

/* TFLite's two roundings of a sum: less_one is the right shift less one, twice the zero point plus 1 is `zero`. */
static inline int8_t k_round_twice(uint32_t sum, int32_t multiplier, uint32_t less_one, int32_t zero)
{
    int32_t twice = (int32_t)(sum << 1);
    int32_t start = (int32_t)((uint32_t)zero << less_one) + (twice >> 31);
    return k_ssat8((k_smmlar(twice, multiplier, start) >> less_one) >> 1);
}

#endif
