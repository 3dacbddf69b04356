/* SPDX-License-Identifier: 0BSD */
/* See k_pad_8.h. */
#include "k_pad_8.h"

#include "k_common.h"

static int inside(const k_pad_8_t *layer, int axis, int32_t index)
{
    return index >= layer->before[axis] && index < layer->before[axis] + layer->inside[axis];
}

/* One run along the innermost axis that holds values of x. */
static void row(const k_pad_8_t *layer, const int8_t *x, int8_t *y)
{
    int32_t before = layer->before[3];
    int32_t values = layer->inside[3];

    k_fill(y, (int8_t)layer->value, before);
    k_copy(x, y + before, values);
    k_fill(y + before + values, (int8_t)layer->value, layer->extent[3] - before - values);
}

void k_pad_8(const k_pad_8_t *layer, const int8_t *x, int8_t *y)
{
    const int32_t *extent = layer->extent;

    for (int32_t i = 0; i < extent[0]; i++) {
        for (int32_t j = 0; j < extent[1]; j++) {
            for (int32_t k = 0; k < extent[2]; k++) {
                if (inside(layer, 0, i) && inside(layer, 1, j) && inside(layer, 2, k)) {
                    row(layer, x, y);
                    x += layer->inside[3];
                } else {
                    k_fill(y, (int8_t)layer->value, extent[3]);
                }
                y += extent[3];
            }
        }
    }
}
