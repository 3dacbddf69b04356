/* SPDX-License-Identifier: 0BSD */
#include "k_stream.h"

#include "k_common.h"

static int32_t begin_of(int32_t held)
{
    return held & 0xffff;
}

static int32_t end_of(int32_t held)
{
    return (int32_t)((uint32_t)held >> 16);
}

static int32_t held_of(int32_t begin, int32_t end)
{
    return (int32_t)((uint32_t)end << 16 | (uint32_t)begin);
}

/* Moves rows to a lower address or to another place: the areas may overlap. */
static K_NOINLINE void move(int32_t *words, int32_t from, int32_t to, int32_t bytes)
{
    if (((from | to | bytes) & 3) == 0) {
        const int32_t *source = words + from / 4;
        int32_t *target = words + to / 4;
        K_ROLLED
        for (; bytes >= 16; bytes -= 16) {
            int32_t a = source[0];
            int32_t b = source[1];
            int32_t c = source[2];
            int32_t d = source[3];
            source += 4;
            target[0] = a;
            target[1] = b;
            target[2] = c;
            target[3] = d;
            target += 4;
        }
        K_ROLLED
        for (; bytes > 0; bytes -= 4) {
            *target++ = *source++;
        }
        return;
    }
    {
        const int8_t *source = (const int8_t *)words + from;
        int8_t *target = (int8_t *)words + to;
        K_ROLLED
        for (; bytes > 0; bytes--) {
            *target++ = *source++;
        }
    }
}

/* The first row that some reader needs, at most the tensor's end. */
static int32_t first_needed(const k_stream_rows_t *tensor, const int32_t *state, int32_t end)
{
    int32_t needed = end;

    K_ROLLED
    for (int32_t i = 0; i < K_STREAM_READERS; i++) {
        const k_stream_reader_t *reader = &tensor->reader[i];
        if (reader->held != 0) {
            needed = k_min(needed, end_of(state[reader->held]) * reader->stride - reader->pad_top);
        }
    }
    return k_max(needed, 0);
}

/* Rows that are still needed, from where they lie (or, parked, from the window) to the front of a place. */
static K_NOINLINE void keep(const k_stream_rows_t *tensor, int32_t *state, int32_t *words, int32_t is_parking)
{
    int32_t begin = begin_of(state[tensor->held]);
    int32_t end = end_of(state[tensor->held]);
    int32_t needed = first_needed(tensor, state, end);
    int32_t bytes = (end - needed) * tensor->row_bytes;
    int32_t from = tensor->window + (needed - begin) * tensor->row_bytes;
    int32_t to = is_parking != 0 ? tensor->parked : tensor->window;
    int32_t step = is_parking != 0 ? tensor->parked_bytes : tensor->piece_bytes;

    if (bytes > 0 && from != to) {
        K_ROLLED
        for (int32_t piece = 0; piece < tensor->pieces; piece++) {
            move(words, from, to, bytes);
            from += tensor->piece_bytes;
            to += step;
        }
    }
    state[tensor->held] = held_of(needed, end);
}

/* Parked rows back to the front of the window. */
static void fetch(const k_stream_rows_t *tensor, const int32_t *state, int32_t *words)
{
    int32_t bytes = (end_of(state[tensor->held]) - begin_of(state[tensor->held])) * tensor->row_bytes;
    int32_t from = tensor->parked;
    int32_t to = tensor->window;

    K_ROLLED
    for (int32_t piece = 0; piece < tensor->pieces && bytes > 0; piece++) {
        move(words, from, to, bytes);
        from += tensor->parked_bytes;
        to += tensor->piece_bytes;
    }
}

void k_stream_start(const k_stream_rows_t *tensors, int32_t count, int32_t state, int32_t *words)
{
    words += state;
    words[0] = 0;
    words[1] = K_STREAM_UP;
    K_ROLLED
    for (; count > 0; count--) {
        words[tensors->held] = held_of(0, tensors->whole == 2 ? tensors->rows : 0);
        tensors++;
    }
}

int8_t *k_stream_reserve(const k_stream_rows_t *tensor, int32_t state, int32_t *words)
{
    int32_t *held = words + state;

    if (tensor->parked >= 0) {
        fetch(tensor, held, words);
    } else if (tensor->whole == 0) {
        keep(tensor, held, words, 0);
    }
    return (int8_t *)words + tensor->window +
           (end_of(held[tensor->held]) - begin_of(held[tensor->held])) * tensor->row_bytes;
}

int32_t k_stream_begin(const k_stream_stage_t *stage, int32_t *words, k_stream_run_t *run)
{
    int32_t *state = words + stage->state;
    const k_stream_rows_t *in = stage->in;
    const k_stream_rows_t *out = stage->out;
    int32_t begin = begin_of(state[in->held]);
    int32_t end = end_of(state[in->held]);
    int32_t made = end_of(state[out->held]);
    int32_t can = out->rows;
    int32_t top = made * stage->stride - stage->pad_top - begin;

    if (end < in->rows) {
        int32_t below = end + stage->pad_top - stage->filter_h;
        can = below < 0 ? 0 : below / stage->stride + 1;
    }
    if (stage->other != 0) {
        can = k_min(can, end_of(state[stage->other->held]));
    }
    run->first = made;
    run->rows = k_min(k_min(can, out->rows) - made, stage->most);
    if (run->rows <= 0) {
        if (state[1] == K_STREAM_FRESH && in->parked >= 0) {
            keep(in, state, words, 1);
        }
        if (state[1] != K_STREAM_UP && stage->passes != 0) {
            state[0]++;
            state[1] = K_STREAM_PASSED;
        } else {
            state[0]--;
            state[1] = K_STREAM_UP;
        }
        return 0;
    }
    if (state[1] != K_STREAM_FRESH && in->parked >= 0) {
        fetch(in, state, words);
    }
    run->pad_top = k_max(-top, 0);
    top = k_max(top, 0);
    run->in_rows = end - begin - top;
    run->x = (const int8_t *)words + in->window + top * in->row_bytes;
    run->other = 0;
    if (stage->other != 0) {
        top = made - begin_of(state[stage->other->held]);
        run->other = (const int8_t *)words + stage->other->window + top * stage->other->row_bytes;
    }
    run->y = k_stream_reserve(out, stage->state, words);
    return 1;
}

void k_stream_end(const k_stream_stage_t *stage, int32_t *words, const k_stream_run_t *run)
{
    int32_t *state = words + stage->state;
    int32_t held = state[stage->out->held];

    state[stage->out->held] = held_of(begin_of(held), end_of(held) + run->rows);
    if (stage->in->parked >= 0) {
        keep(stage->in, state, words, 1);
    }
    state[0] = stage->next;
    state[1] = stage->next != stage->index ? K_STREAM_FRESH : K_STREAM_UP;
}
