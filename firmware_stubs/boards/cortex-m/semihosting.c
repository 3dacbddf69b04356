/* SPDX-License-Identifier: 0BSD */
/* The five semihosting calls that the harness needs; see semihosting.h. */
#include "semihosting.h"

enum { SYS_OPEN = 0x01, SYS_CLOSE = 0x02, SYS_WRITE = 0x05, SYS_READ = 0x06, SYS_EXIT_EXTENDED = 0x20 };
enum { STOPPED_APPLICATION_EXIT = 0x20026 };

static uint32_t call(uint32_t operation, const uint32_t *block) {
  register uint32_t r0 __asm("r0") = operation;
  register const uint32_t *r1 __asm("r1") = block;
  __asm volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
  return r0;
}

static uint32_t address(const void *pointer) { return (uint32_t)(uintptr_t)pointer; }

int32_t semihosting_open(const char *name, enum semihosting_mode mode) {
  uint32_t length = 0;
  while (name[length] != '\0') {
    length++;
  }
  const uint32_t block[3] = {address(name), (uint32_t)mode, length};
  return (int32_t)call(SYS_OPEN, block);
}

void semihosting_close(int32_t file) {
  const uint32_t block[1] = {(uint32_t)file};
  (void)call(SYS_CLOSE, block);
}

uint32_t semihosting_read(int32_t file, void *bytes, uint32_t count) {
  const uint32_t block[3] = {(uint32_t)file, address(bytes), count};
  return call(SYS_READ, block);
}

uint32_t semihosting_write(int32_t file, const void *bytes, uint32_t count) {
  const uint32_t block[3] = {(uint32_t)file, address(bytes), count};
  return call(SYS_WRITE, block);
}

void semihosting_exit(int status) {
  const uint32_t block[2] = {STOPPED_APPLICATION_EXIT, (uint32_t)status};
  (void)call(SYS_EXIT_EXTENDED, block);
  for (;;) {
  }
}
