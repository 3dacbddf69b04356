/* SPDX-License-Identifier: 0BSD */
/* What the harness asks of a board. */
#ifndef BOARD_H
#define BOARD_H

#include <stdint.h>

/* Starts the board's free-running counter. */
void board_start_clock(void);
/* Ticks since then, modulo 2^32. What a tick is, the board's file says. */
uint32_t board_ticks(void);

#endif
