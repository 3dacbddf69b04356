/* SPDX-License-Identifier: 0BSD */
/* Start-up of a Cortex-M4 or later: vector table, FPU, .data and .bss, and a report of faults.
 *
 * Linker symbols: see link.ld.in. A fault ends the run: its registers go to the file "fault.bin" by
 * semihosting (struct fault_record below, little-endian), then the image exits with status 1. */
#include <stdint.h>

#include "semihosting.h"

extern uint32_t stack_bottom[], stack_top[];
extern uint32_t data_start[], data_end[], data_load[], bss_start[], bss_end[];

int main(void);
void reset_handler(void);
void fault_handler(void);
void start_c(void);
void fault_report(const uint32_t *frame);

typedef void (*vector_t)(void);

/* Initial stack pointer, reset, then the core's exceptions: nothing enables one, so each is a fault. */
__attribute__((section(".vectors"), used)) static const vector_t vectors[16] = {
    (vector_t)(void *)stack_top, reset_handler, fault_handler, fault_handler, fault_handler, fault_handler,
    fault_handler,               fault_handler, fault_handler, fault_handler, fault_handler, fault_handler,
    fault_handler,               fault_handler, fault_handler, fault_handler,
};

#define CFSR (*(volatile const uint32_t *)0xE000ED28u)
#define HFSR (*(volatile const uint32_t *)0xE000ED2Cu)
#define MMFAR (*(volatile const uint32_t *)0xE000ED34u)
#define BFAR (*(volatile const uint32_t *)0xE000ED38u)

/* The FPU comes first (CPACR: full access to CP10 and CP11): C may use its registers from the start. */
__attribute__((naked)) void reset_handler(void) {
#if defined(__ARM_FP)
  __asm volatile("ldr r0, =0xE000ED88\n"
                 "ldr r1, [r0]\n"
                 "orr r1, r1, #0xF00000\n"
                 "str r1, [r0]\n"
                 "dsb\n"
                 "isb\n"
                 "b start_c\n"
                 ".ltorg\n");
#else
  __asm volatile("b start_c\n");
#endif
}

void start_c(void) {
  const uint32_t *source = data_load;
  for (uint32_t *word = data_start; word < data_end; word++) {
    *word = *source++;
  }
  for (uint32_t *word = bss_start; word < bss_end; word++) {
    *word = 0;
  }
  semihosting_exit(main());
}

/* The interrupted stack may be what is broken: the report runs on a fresh one. */
__attribute__((naked)) void fault_handler(void) {
  __asm volatile("mov r0, sp\n"
                 "ldr r1, =stack_top\n"
                 "mov sp, r1\n"
                 "b fault_report\n"
                 ".ltorg\n");
}

struct fault_record {
  uint32_t pc, lr, psr; /* as stacked by the core; 0 where the stack itself was lost */
  uint32_t cfsr, hfsr, mmfar, bfar;
  uint32_t sp;
};

void fault_report(const uint32_t *frame) {
  struct fault_record record = {0};
  if (frame >= stack_bottom && frame + 8 <= stack_top) {
    record.lr = frame[5];
    record.pc = frame[6];
    record.psr = frame[7];
  }
  record.cfsr = CFSR;
  record.hfsr = HFSR;
  record.mmfar = MMFAR;
  record.bfar = BFAR;
  record.sp = (uint32_t)(uintptr_t)frame;
  int32_t file = semihosting_open("fault.bin", SEMIHOSTING_WRITE);
  if (file >= 0) {
    (void)semihosting_write(file, &record, sizeof record);
    semihosting_close(file);
  }
  semihosting_exit(1);
}
