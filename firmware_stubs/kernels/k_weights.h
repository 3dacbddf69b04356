/* SPDX-License-Identifier: 0BSD */
/* A model's weights as one blob: its header, and the check that it is whole.
 *
 * The blob begins with k_weights_header_t, little-endian; docs/generated-c.md has the format. No state, no
 * library: these functions may run anywhere, also in a boot loader. The models of one image share them. */
#ifndef K_WEIGHTS_H
#define K_WEIGHTS_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define K_WEIGHTS_MAGIC 0x574b4445u /* "EDKW" */
#define K_WEIGHTS_FORMAT 1u

typedef struct {
    uint32_t magic;
    uint16_t format;
    uint16_t header_bytes;
    uint32_t bytes;     /* of the whole blob, this header included */
    uint32_t checksum;  /* CRC-32 of everything behind this field */
    uint32_t layout[2]; /* which code the blob is for; 0, 0: only the code that it was linked with */
    uint32_t model[2];  /* the first 8 bytes of the model's digest */
} k_weights_header_t;

enum {
    K_WEIGHTS_SOUND = 0,
    K_WEIGHTS_UNALIGNED = 1, /* a null pointer, or one that is no multiple of 4 */
    K_WEIGHTS_FOREIGN = 2,   /* no magic number: not a blob */
    K_WEIGHTS_FORMAT_UNKNOWN = 3,
    K_WEIGHTS_LENGTH = 4,  /* other than its header says: cut off, or not whole yet */
    K_WEIGHTS_DAMAGED = 5, /* its checksum is another */
    K_WEIGHTS_LAYOUT = 6,  /* for other code: another structure, other shapes, another kernel family */
    K_WEIGHTS_FIXED = 7    /* the code was not built to have its weights replaced */
};

/* CRC-32 as zlib computes it; `crc` is 0 at first, then what the call before returned. */
uint32_t k_weights_crc32(uint32_t crc, const uint8_t *data, uint32_t bytes);

/* K_WEIGHTS_SOUND, or the first fault of the above up to K_WEIGHTS_DAMAGED. Reads `bytes` bytes at most. */
int k_weights_check(const void *blob, uint32_t bytes);

#ifdef __cplusplus
}
#endif

#endif
