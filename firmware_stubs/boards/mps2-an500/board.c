/* SPDX-License-Identifier: 0BSD */
/* Arm MPS2 with image AN500 (Cortex-M7): the clock is CMSDK timer 0, which counts down at 25 MHz.
 *
 * Under QEMU's -icount shift=0 an instruction takes 1 ns of virtual time: a tick is 40 instructions. */
#include "board.h"

#define TIMER0_CTRL (*(volatile uint32_t *)0x40000000u)
#define TIMER0_VALUE (*(volatile const uint32_t *)0x40000004u)
#define TIMER0_RELOAD (*(volatile uint32_t *)0x40000008u)

void board_start_clock(void) {
  TIMER0_RELOAD = 0xFFFFFFFFu;
  TIMER0_CTRL = 1;
}

uint32_t board_ticks(void) { return 0xFFFFFFFFu - TIMER0_VALUE; }
