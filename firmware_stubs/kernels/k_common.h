/* SPDX-License-Identifier: 0BSD */
/* Integer arithmetic that every kernel shares: TFLite's reference rounding, bit for bit.
 *
 * Needs nothing but <stdint.h>, two's complement, and an arithmetic right shift of negative numbers
 * (checked below; all compilers for the supported cores have it). Sums are kept in uint32_t, so that
 * an overflow wraps as on the core and is never undefined behaviour. */
#ifndef K_COMMON_H
#define K_COMMON_H

#include <stdint.h>

typedef char k_right_shift_must_be_arithmetic[((-2) >> 1) == -1 ? 1 : -1];

/* Before an inner loop: four steps a turn (K_UNROLL_4), or one (K_ROLLED) where turns are few. Left to itself, clang unrolls until the sums spill, and GCC
 * hoists the loads of a loop unrolled by hand until it spills too. */
#if defined(__clang__)
#define K_UNROLL_4 _Pragma("clang loop unroll_count(4)")
#define K_ROLLED _Pragma("clang loop unroll(disable)")
#elif defined(__GNUC__) && __GNUC__ >= 8
#define K_UNROLL_4 _Pragma("GCC unroll 4")
#define K_ROLLED
#else
#define K_UNROLL_4
#define K_ROLLED
#endif

/* Before a function whose loop needs all registers for itself, or that is large and called from some places. */
#if defined(__GNUC__)
#define K_NOINLINE __attribute__((noinline))
#else
#define K_NOINLINE
#endif

/* sum + a * b; |a * b| must fit int32. */
static inline uint32_t k_mac(uint32_t sum, int32_t a, int32_t b)
{
    return sum + (uint32_t)(a * b);
}

/* floor((a * b + 2^30) / 2^31): TFLite's doubling high multiply. Not for INT32_MIN twice. */
static inline int32_t k_doubling_high_mul(int32_t a, int32_t b)
{
    return (int32_t)(((int64_t)a * b + ((int64_t)1 << 30)) >> 31);
}

/* value / 2^exponent to nearest, ties away from zero. exponent in [1, 31]; value > INT32_MIN. */
static inline int32_t k_rounding_divide(int32_t value, int32_t exponent)
{
    int32_t away = value + (value >> 31);
    return ((away >> (exponent - 1)) + 1) >> 1;
}

/* value * multiplier * 2^(shift - 31), rounded twice as TFLite's reference rounds.
 * multiplier >= 0; shift in [-31, 30]; a left shift that overflows wraps. */
static inline int32_t k_requantize(int32_t value, int32_t multiplier, int32_t shift)
{
    if (shift < 0) {
        return k_rounding_divide(k_doubling_high_mul(value, multiplier), -shift);
    }
    return k_doubling_high_mul((int32_t)((uint32_t)value << shift), multiplier);
}

/* value clamped to [lowest, highest], both within int8. */
static inline int8_t k_clamp(int32_t value, int32_t lowest, int32_t highest)
{
    value = value < lowest ? lowest : value;
    value = value > highest ? highest : value;
    return (int8_t)value;
}

static inline int32_t k_max(int32_t a, int32_t b)
{
    return a > b ? a : b;
}

static inline int32_t k_min(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

/* Copies bytes; the two areas must not overlap. */
static inline void k_copy(const int8_t *restrict from, int8_t *restrict to, int32_t bytes)
{
    for (int32_t i = 0; i < bytes; i++) {
        to[i] = from[i];
    }
}

static inline void k_fill(int8_t *to, int8_t value, int32_t bytes)
{
    K_ROLLED
    for (int32_t i = 0; i < bytes; i++) {
        to[i] = value;
    }
}

#endif
