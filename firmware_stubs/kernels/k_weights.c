/* SPDX-License-Identifier: 0BSD */
/* See k_weights.h. */
#include "k_weights.h"

#define UNCHECKED_BYTES 16u /* magic to checksum */

/* Four bits a step: a table of 64 bytes. */
static const uint32_t crc_of_nibble[16] = {
    0x00000000u, 0x1db71064u, 0x3b6e20c8u, 0x26d930acu, 0x76dc4190u, 0x6b6b51f4u, 0x4db26158u, 0x5005713cu,
    0xedb88320u, 0xf00f9344u, 0xd6d6a3e8u, 0xcb61b38cu, 0x9b64c2b0u, 0x86d3d2d4u, 0xa00ae278u, 0xbdbdf21cu,
};

uint32_t k_weights_crc32(uint32_t crc, const uint8_t *data, uint32_t bytes)
{
    crc = ~crc;
    for (; bytes > 0u; bytes--) {
        crc ^= *data++;
        crc = (crc >> 4) ^ crc_of_nibble[crc & 15u];
        crc = (crc >> 4) ^ crc_of_nibble[crc & 15u];
    }
    return ~crc;
}

int k_weights_check(const void *blob, uint32_t bytes)
{
    const k_weights_header_t *header = (const k_weights_header_t *)blob;

    if (blob == 0 || ((uintptr_t)blob & 3u) != 0u) {
        return K_WEIGHTS_UNALIGNED;
    }
    if (bytes < sizeof *header) {
        return K_WEIGHTS_LENGTH;
    }
    if (header->magic != K_WEIGHTS_MAGIC) {
        return K_WEIGHTS_FOREIGN;
    }
    if (header->format != K_WEIGHTS_FORMAT || header->header_bytes != sizeof *header) {
        return K_WEIGHTS_FORMAT_UNKNOWN;
    }
    if (header->bytes != bytes) {
        return K_WEIGHTS_LENGTH;
    }
    if (k_weights_crc32(0u, (const uint8_t *)blob + UNCHECKED_BYTES, bytes - UNCHECKED_BYTES) != header->checksum) {
        return K_WEIGHTS_DAMAGED;
    }
    return K_WEIGHTS_SOUND;
}
