/*
 * Messages that carry numbers: {"n": id, "s": sender, "q": sequence, "p": pad}. The proxy and the
 * receivers find the numbers by their places, and need no decoder.
 */
#ifndef FAULTS_NUMBERED_H
#define FAULTS_NUMBERED_H

#include <stdint.h>
#include <string.h>
#include <time.h>

#define HEAD_SIZE 34
/* A message is at most this much longer than its pad. */
#define NUMBERED_SIZE (HEAD_SIZE + 16)

/* The microseconds of the monotonic clock. */
static inline uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000 + (uint64_t)time.tv_nsec / 1000;
}

static inline uint8_t *put(uint8_t *place, char key, uint64_t number) {
    *place++ = 0xa1;
    *place++ = (uint8_t)key;
    *place++ = 0xcf;
    for (int shift = 56; shift >= 0; shift -= 8) {
        *place++ = (uint8_t)(number >> shift);
    }
    return place;
}

static inline uint64_t number_at(const uint8_t *place) {
    uint64_t number = 0;
    for (int i = 0; i < 8; i++) {
        number = number << 8 | place[i];
    }
    return number;
}

static inline size_t write_message(uint8_t *message, uint64_t id, uint64_t sender,
                                   uint64_t sequence, uint32_t pad) {
    uint8_t *place = message;
    *place++ = 0x84;
    place = put(place, 'n', id);
    place = put(place, 's', sender);
    place = put(place, 'q', sequence);
    *place++ = 0xa1;
    *place++ = 'p';
    *place++ = 0xc6;
    for (int shift = 24; shift >= 0; shift -= 8) {
        *place++ = (uint8_t)(pad >> shift);
    }
    memset(place, 'x', pad);
    return (size_t)(place - message) + pad;
}

#endif
