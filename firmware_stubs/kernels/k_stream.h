/* SPDX-License-Identifier: 0BSD */
/* Rows streamed through a chain of layers: each stage turns the rows that it has into the rows that they allow,
 * and no tensor inside the chain exists as a whole. Nothing is computed twice.
 *
 * A tensor's rows begin .. end - 1 lie in its window, oldest first. Rows that no reader needs any more are
 * dropped. Where `parked` is not negative the window is shared with other stages, and what is still
 * needed waits in a smaller place between the runs of the tensor's two stages.
 *
 * A chain's state is words of the arena: the stage to try next (below 0: nothing can run), how it came to
 * be tried, then for each tensor its begin in the low half and its end in the high half. */
#ifndef K_STREAM_H
#define K_STREAM_H

#include <stdint.h>

#define K_STREAM_READERS 2

/* How a stage came to be tried: because one behind it could not run, because the one before it has just run (its
 * rows lie in the window), or because the one before it was passed over. */
enum { K_STREAM_UP = 0, K_STREAM_FRESH = 1, K_STREAM_PASSED = 2 };

typedef struct {
    int16_t held;   /* the word of the state that says what the reader has made; 0: no reader */
    int16_t stride; /* of its rows */
    int16_t pad_top;
} k_stream_reader_t;

/* A tensor. Its rows are cut into pieces: one for NHWC, one for each plane of four channels. All offsets
 * are bytes from the arena's start, multiples of 4. */
typedef struct {
    int32_t window;
    int32_t parked;      /* below 0: rows stay in the window */
    int32_t row_bytes;   /* from a row to the next in a piece */
    int32_t piece_bytes; /* from a piece to the next in the window */
    int32_t parked_bytes;
    int16_t pieces;
    int16_t rows;  /* of the whole tensor */
    int16_t whole; /* not 0: rows never move; 2: and all are there when the chain starts */
    int16_t held;  /* the word of the state */
    k_stream_reader_t reader[K_STREAM_READERS];
} k_stream_rows_t;

typedef struct {
    int32_t state; /* word of the arena where the chain's state begins */
    const k_stream_rows_t *in;
    const k_stream_rows_t *other; /* a second operand, row by row; may be 0 */
    const k_stream_rows_t *out;
    int16_t index; /* of the stage in its chain */
    int16_t next;  /* the stage behind it; its own index for the last one */
    int16_t filter_h;
    int16_t stride;
    int16_t pad_top;
    int16_t most;   /* output rows of one run, at most */
    int16_t passes; /* whether a stage behind it is tried where it cannot run: its input is not the output before */
} k_stream_stage_t;

/* What one run works on. */
typedef struct {
    const int8_t *x; /* the first row that is needed and exists */
    const int8_t *other;
    int8_t *y;       /* where the first row goes */
    int32_t in_rows; /* rows from x on */
    int32_t rows;    /* output rows */
    int32_t pad_top; /* rows of padding above x */
    int32_t first;   /* number of the first output row */
} k_stream_run_t;

/* Begins a chain of `count` tensors: all rows of its sources are there. */
void k_stream_start(const k_stream_rows_t *tensors, int32_t count, int32_t state, int32_t *words);

/* 0 where the stage cannot run: then the stage before it is next. */
int32_t k_stream_begin(const k_stream_stage_t *stage, int32_t *words, k_stream_run_t *run);

/* The rows of the run are there. */
void k_stream_end(const k_stream_stage_t *stage, int32_t *words, const k_stream_run_t *run);

/* Makes room behind the rows of a tensor and says where the next one goes. */
int8_t *k_stream_reserve(const k_stream_rows_t *tensor, int32_t state, int32_t *words);

#endif
