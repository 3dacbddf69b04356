/* SPDX-License-Identifier: 0BSD */
/* A program without any library around a model's C: integers of samples on standard input, of answers out.
 *
 * Linked statically with the sources of a bundle's shared object, so that 32-bit code runs on a 64-bit system
 * that has no 32-bit libraries. Ends with status 1 for an input that is cut off.
 */
#include <stdint.h>

#include "model.h"

void edgekd_init(void *state);
void edgekd_run_integers(void *state, const void *q, void *y);
void _start(void);

#if defined(__arm__)
enum { SYS_EXIT = 1, SYS_READ = 3, SYS_WRITE = 4 };

static long call(long number, long first, long second, long third)
{
    register long r7 __asm__("r7") = number;
    register long r0 __asm__("r0") = first;
    register long r1 __asm__("r1") = second;
    register long r2 __asm__("r2") = third;

    __asm__ volatile("svc 0" : "+r"(r0) : "r"(r7), "r"(r1), "r"(r2) : "memory");
    return r0;
}
#elif defined(__aarch64__)
enum { SYS_EXIT = 93, SYS_READ = 63, SYS_WRITE = 64 };

static long call(long number, long first, long second, long third)
{
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = first;
    register long x1 __asm__("x1") = second;
    register long x2 __asm__("x2") = third;

    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2) : "memory");
    return x0;
}
#endif

/* Read or write all of `count` bytes; returns how many it could. */
static long whole(long number, long file, char *data, long count)
{
    long done = 0, more = 1;

    while (done < count && more > 0) {
        more = call(number, file, (long)(data + done), count - done);
        done += more > 0 ? more : 0;
    }
    return done;
}

static model_t state;
static char taken[MODEL_INPUT0_BYTES];
static char given[MODEL_OUTPUT0_BYTES];

void _start(void)
{
    long count;

    edgekd_init(&state);
    while ((count = whole(SYS_READ, 0, taken, (long)sizeof taken)) == (long)sizeof taken) {
        edgekd_run_integers(&state, taken, given);
        (void)whole(SYS_WRITE, 1, given, (long)sizeof given);
    }
    (void)call(SYS_EXIT, count != 0, 0, 0);
    for (;;) {
    }
}
