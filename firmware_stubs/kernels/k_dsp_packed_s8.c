/* SPDX-License-Identifier: 0BSD */
#include "k_dsp_packed_s8.h"

#include "k_dsp.h"

/* What each byte of indices of 4 bits stands for: channel A's value + 256 * channel B's. */
static void fill_4(const int8_t *a, const int8_t *b, uint32_t *table)
{
    K_ROLLED
    for (int32_t j = 0; j < 16; j++) {
        int32_t above = 256 * b[j];
        K_ROLLED
        for (int32_t i = 0; i < 16; i++) {
            *table++ = k_pair(a[i] + above, 0);
        }
    }
}

/* The same for 2 bits: two inputs in a byte. */
static void fill_2(const int8_t *a, const int8_t *b, uint32_t *table)
{
    K_ROLLED
    for (int32_t j = 0; j < 16; j++) {
        int32_t later = a[j & 3] + 256 * b[j >> 2];
        K_ROLLED
        for (int32_t i = 0; i < 16; i++) {
            *table++ = k_pair(a[i & 3] + 256 * b[i >> 2], later);
        }
    }
}

/* What an assignment does, without the call of memcpy that compilers make of it. */
static void copy_layer(const k_dsp_conv_s8_t *from, k_dsp_conv_s8_t *to)
{
    const unsigned char *source = (const unsigned char *)from;
    unsigned char *target = (unsigned char *)to;

    K_ROLLED
    for (uint32_t i = 0; i < sizeof(*to); i++) {
        target[i] = source[i];
    }
}

/* Channels `at` to `end` into words as k_dsp_pairs_s8 reads them; table: room for 256 words. */
static K_NOINLINE void unpack_chunk(
    const k_dsp_packed_s8_t *layer, int32_t at, int32_t end, uint32_t *table, uint32_t *words)
{
    int32_t depth = layer->conv.pairs.depth;
    int32_t behind = layer->conv.pairs.shift > 0 ? 4 : 3;
    int32_t bytes = depth * layer->bits / 4;
    const uint8_t *indices = layer->indices + (at >> 1) * bytes;
    const uint32_t *sides = layer->sides + (at >> 1) * (2 + behind);
    int32_t held = -1;

    for (; at < end; at += 2) {
        int32_t a = layer->channel_tables != 0 ? layer->channel_tables[at] : 0;
        int32_t b = layer->channel_tables != 0 ? layer->channel_tables[at + 1] : 0;
        if (held != a + 256 * b) {
            const int8_t *tables = layer->tables;
            held = a + 256 * b;
            if (layer->bits == 4) {
                fill_4(tables + 16 * a, tables + 16 * b, table);
            } else {
                fill_2(tables + 4 * a, tables + 4 * b, table);
            }
        }
        *words++ = *sides++;
        *words++ = *sides++;
        layer->unpack(indices, table, words, depth / 4);
        words += depth / 2;
        indices += bytes;
        K_ROLLED
        for (int32_t i = 0; i < behind; i++) {
            *words++ = *sides++;
        }
    }
}

void k_dsp_packed_s8(const k_dsp_packed_s8_t *layer, const int8_t *x, int32_t *scratch, int8_t *y)
{
    k_dsp_conv_s8_t part;
    uint32_t *words = (uint32_t *)(void *)(scratch + layer->free_words);
    int32_t step = layer->conv.pairs.planes != 0 ? layer->chunk / 4 * layer->conv.pairs.step_bytes : layer->chunk;

    copy_layer(&layer->conv, &part);
    part.pairs.weights = words;
    for (int32_t at = 0; at < layer->outputs; at += layer->chunk) {
        int32_t end = k_min(at + layer->chunk, layer->outputs);
        unpack_chunk(layer, at, end, (uint32_t *)(void *)scratch, words);
        part.pairs.outputs = end - at;
        layer->run(&part, x, scratch, y);
        y += step;
    }
}
