/* SPDX-License-Identifier: 0BSD */
/* A filter window clipped to the image along one axis. */
#ifndef K_WINDOW_H
#define K_WINDOW_H

#include <stdint.h>

#include "k_common.h"

typedef struct {
    int32_t first; /* the first tap inside the image */
    int32_t count; /* taps inside the image, >= 0 */
} k_span_t;

/* Taps start, start + dilation, ... (taps of them) that lie in [0, extent). */
static inline k_span_t k_clip(int32_t start, int32_t dilation, int32_t taps, int32_t extent)
{
    k_span_t span = {0, 0};
    int32_t last = taps;

    if (dilation == 1) {
        span.first = k_max(-start, 0);
        last = k_min(taps, extent - start);
    } else {
        while (span.first < taps && start + span.first * dilation < 0) {
            span.first++;
        }
        while (last > span.first && start + (last - 1) * dilation >= extent) {
            last--;
        }
    }
    span.count = k_max(last - span.first, 0);
    return span;
}

#endif
