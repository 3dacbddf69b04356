/* SPDX-License-Identifier: 0BSD */
/* Arm MPS2 with image AN505 (Cortex-M33): the clock is CMSDK timer 0 (secure alias), which counts down at 20 MHz.
 *
 * Under QEMU's -icount shift=0 an instruction takes 1 ns of virtual time: a tick is 50 instructions. */
#include "board.h"

#define TIMER0_CTRL (*(volatile uint32_t *)0x50000000u)
#define TIMER0_VALUE (*(volatile const uint32_t *)0x50000004u)
#define TIMER0_RELOAD (*(volatile uint32_t *)0x50000008u)

void board_start_clock(void) {
  TIMER0_RELOAD = 0xFFFFFFFFu;
  TIMER0_CTRL = 1;
}

uint32_t board_ticks(void) { return 0xFFFFFFFFu - TIMER0_VALUE; }
