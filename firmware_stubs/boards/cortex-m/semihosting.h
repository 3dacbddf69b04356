/* SPDX-License-Identifier: 0BSD */
/* Files and exit through Arm semihosting (BKPT 0xAB): what a debugger or an emulator answers.
 *
 * File names are relative to the directory of the run. Nothing here works on a core without a host. */
#ifndef SEMIHOSTING_H
#define SEMIHOSTING_H

#include <stdint.h>

enum semihosting_mode { SEMIHOSTING_READ = 1, SEMIHOSTING_WRITE = 5 }; /* "rb", "wb" */

/* A handle, or -1. */
int32_t semihosting_open(const char *name, enum semihosting_mode mode);
void semihosting_close(int32_t file);
/* Both give the number of bytes that were NOT moved: 0 when all were. */
uint32_t semihosting_read(int32_t file, void *bytes, uint32_t count);
uint32_t semihosting_write(int32_t file, const void *bytes, uint32_t count);
__attribute__((noreturn)) void semihosting_exit(int status);

#endif
