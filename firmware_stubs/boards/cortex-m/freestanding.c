/* SPDX-License-Identifier: 0BSD */
/* memcpy, memmove, memset: compilers emit calls to them even in freestanding code.
 *
 * Words where both sides allow it (the core loads and stores unaligned words), else bytes. The
 * attributes keep the compiler from turning a loop back into a call of the function that holds it. */
#include <stddef.h>
#include <stdint.h>

#if defined(__clang__)
#define NO_CALLS __attribute__((no_builtin))
#else
#define NO_CALLS __attribute__((optimize("no-tree-loop-distribute-patterns")))
#endif

/* A word at any address, over any type. */
struct word {
  uint32_t value;
} __attribute__((packed, may_alias));

void *memcpy(void *restrict to, const void *restrict from, size_t count);
void *memmove(void *to, const void *from, size_t count);
void *memset(void *to, int value, size_t count);

NO_CALLS void *memcpy(void *restrict to, const void *restrict from, size_t count) {
  uint8_t *target = to;
  const uint8_t *source = from;
  for (; count >= 16; count -= 16, target += 16, source += 16) {
    const uint32_t a = ((const struct word *)source)[0].value;
    const uint32_t b = ((const struct word *)source)[1].value;
    const uint32_t c = ((const struct word *)source)[2].value;
    const uint32_t d = ((const struct word *)source)[3].value;
    ((struct word *)target)[0].value = a;
    ((struct word *)target)[1].value = b;
    ((struct word *)target)[2].value = c;
    ((struct word *)target)[3].value = d;
  }
  for (; count >= 4; count -= 4, target += 4, source += 4) {
    ((struct word *)target)->value = ((const struct word *)source)->value;
  }
  for (; count > 0; count--) {
    *target++ = *source++;
  }
  return to;
}

NO_CALLS void *memmove(void *to, const void *from, size_t count) {
  uint8_t *target = to;
  const uint8_t *source = from;
  if ((uintptr_t)target - (uintptr_t)source >= count) {
    return memcpy(to, from, count); /* forward is safe: the target does not begin inside the source */
  }
  while (count > 0) {
    count--;
    target[count] = source[count];
  }
  return to;
}

NO_CALLS void *memset(void *to, int value, size_t count) {
  uint8_t *target = to;
  const uint32_t word = (uint8_t)value * 0x01010101u;
  for (; count >= 4; count -= 4, target += 4) {
    ((struct word *)target)->value = word;
  }
  for (; count > 0; count--) {
    *target++ = (uint8_t)value;
  }
  return to;
}
