/* SPDX-License-Identifier: 0BSD */
/* Two operands walked as four nested axes; a step of 0 repeats an operand along that axis. */
#ifndef K_BROADCAST_H
#define K_BROADCAST_H

#include <stdint.h>

typedef struct {
    int32_t extent[4]; /* of the output, outermost first; each >= 1 */
    int32_t a_step[4]; /* elements from one index to the next */
    int32_t b_step[4];
} k_broadcast_t;

#endif
