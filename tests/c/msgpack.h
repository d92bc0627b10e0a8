/*
 * As much MessagePack as the tests need: a writer into growing memory, and a reader that finds a
 * value of a map. For test code only: out of memory ends the program.
 */
#ifndef MSGPACK_H
#define MSGPACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct mp {
    uint8_t *data;
    size_t length;
    size_t room;
};

static inline void mp_free(struct mp *mp) {
    free(mp->data);
    *mp = (struct mp){0};
}

static inline uint8_t *mp_extend(struct mp *mp, size_t length) {
    if (mp->room - mp->length < length) {
        mp->room = (mp->length + length) * 2;
        mp->data = realloc(mp->data, mp->room);
        if (mp->data == NULL) {
            abort();
        }
    }
    uint8_t *place = mp->data + mp->length;
    mp->length += length;
    return place;
}

static inline void mp_raw(struct mp *mp, const void *bytes, size_t length) {
    if (length > 0) {
        memcpy(mp_extend(mp, length), bytes, length);
    }
}

static inline void mp_byte(struct mp *mp, unsigned byte) { *mp_extend(mp, 1) = (uint8_t)byte; }

static inline void mp_fill(struct mp *mp, unsigned byte, size_t count) {
    if (count > 0) {
        memset(mp_extend(mp, count), (int)byte, count);
    }
}

/* A marker byte and a big-endian number of `size` bytes. */
static inline void mp_number(struct mp *mp, unsigned marker, uint64_t number, unsigned size) {
    mp_byte(mp, marker);
    while (size-- > 0) {
        mp_byte(mp, (unsigned)(number >> (8 * size)) & 0xff);
    }
}

/* Bytes as hexadecimal digits; blanks between them do no harm. */
static inline void mp_hex(struct mp *mp, const char *digits) {
    unsigned half = 0, value = 0;
    for (; *digits != '\0'; digits++) {
        const char *all = "0123456789abcdef", *digit = strchr(all, *digits);
        if (digit == NULL) {
            continue;
        }
        value = value << 4 | (unsigned)(digit - all);
        if (half++ % 2 == 1) {
            mp_byte(mp, value & 0xff);
        }
    }
}

static inline void mp_map(struct mp *mp, uint32_t pairs) {
    if (pairs < 16) {
        mp_byte(mp, 0x80 | pairs);
    } else {
        mp_number(mp, 0xde, pairs, 2);
    }
}

static inline void mp_array(struct mp *mp, uint32_t values) {
    if (values < 16) {
        mp_byte(mp, 0x90 | values);
    } else {
        mp_number(mp, 0xdc, values, 2);
    }
}

static inline void mp_str(struct mp *mp, const char *string) {
    size_t length = strlen(string);
    if (length < 32) {
        mp_byte(mp, 0xa0 | (unsigned)length);
    } else if (length < 256) {
        mp_number(mp, 0xd9, length, 1);
    } else {
        mp_number(mp, 0xda, length, 2);
    }
    mp_raw(mp, string, length);
}

/* Bytes 0xab, `length` of them. */
static inline void mp_blob(struct mp *mp, uint32_t length) {
    mp_number(mp, 0xc6, length, 4);
    mp_fill(mp, 0xab, length);
}

static inline void mp_int(struct mp *mp, int64_t number) {
    if (number >= 0 && number < 128) {
        mp_byte(mp, (unsigned)number);
    } else {
        mp_number(mp, 0xd3, (uint64_t)number, 8);
    }
}

static inline uint64_t mp_big_endian(const uint8_t *at, size_t size) {
    uint64_t result = 0;
    for (size_t i = 0; i < size; i++) {
        result = result << 8 | at[i];
    }
    return result;
}

/* The head of a value: how long the head is, how many bytes and how many values follow it. */
struct mp_head {
    size_t head;
    uint64_t bytes;
    uint64_t values;
    char kind; /* s, b, a, m, e, i, or . for the rest; 0 if it cannot be read */
};

static inline struct mp_head mp_read_head(const uint8_t *at, const uint8_t *end) {
    /* For the markers 0xc0 to 0xdf: kind, bytes of the number in the head, bytes that follow. */
    static const struct {
        char kind;
        uint8_t number, fixed;
    } table[32] = {
        {'.', 0, 0}, {0, 0, 0},   {'.', 0, 0}, {'.', 0, 0},  {'b', 1, 0}, {'b', 2, 0}, {'b', 4, 0},
        {'e', 1, 1}, {'e', 2, 1}, {'e', 4, 1}, {'.', 0, 4},  {'.', 0, 8}, {'i', 0, 1}, {'i', 0, 2},
        {'i', 0, 4}, {'i', 0, 8}, {'i', 0, 1}, {'i', 0, 2},  {'i', 0, 4}, {'i', 0, 8}, {'e', 0, 2},
        {'e', 0, 3}, {'e', 0, 5}, {'e', 0, 9}, {'e', 0, 17}, {'s', 1, 0}, {'s', 2, 0}, {'s', 4, 0},
        {'a', 2, 0}, {'a', 4, 0}, {'m', 2, 0}, {'m', 4, 0},
    };
    struct mp_head none = {0};
    if (at == NULL || at >= end) {
        return none;
    }
    unsigned marker = *at;
    if (marker < 0x80 || marker >= 0xe0) {
        return (struct mp_head){1, 0, 0, 'i'};
    }
    if (marker < 0x90) {
        return (struct mp_head){1, 0, (uint64_t)(marker & 15) * 2, 'm'};
    }
    if (marker < 0xa0) {
        return (struct mp_head){1, 0, marker & 15, 'a'};
    }
    if (marker < 0xc0) {
        return (struct mp_head){1, marker & 31, 0, 's'};
    }
    size_t number = table[marker - 0xc0].number;
    if ((size_t)(end - at) < 1 + number) {
        return none;
    }
    uint64_t value = mp_big_endian(at + 1, number);
    struct mp_head head = {1 + number, table[marker - 0xc0].fixed, 0, table[marker - 0xc0].kind};
    if (head.kind == 'a') {
        head.values = value;
    } else if (head.kind == 'm') {
        head.values = value * 2;
    } else {
        head.bytes += value;
    }
    return head;
}

/* What comes after the value at `at`; NULL if it is not whole. */
static inline const uint8_t *mp_skip(const uint8_t *at, const uint8_t *end) {
    for (uint64_t left = 1; left > 0; left--) {
        struct mp_head head = mp_read_head(at, end);
        if (head.kind == 0 || (uint64_t)(end - at) < head.head + head.bytes) {
            return NULL;
        }
        at += head.head + head.bytes;
        left += head.values;
    }
    return at;
}

/* The value of `key` in the map that is `data`; NULL if there is none. */
static inline const uint8_t *mp_find(const uint8_t *data, size_t length, const char *key) {
    const uint8_t *end = data + length;
    struct mp_head map = mp_read_head(data, end);
    if (map.kind != 'm') {
        return NULL;
    }
    const uint8_t *at = data + map.head;
    for (uint64_t i = 0; i < map.values / 2 && at != NULL; i++) {
        struct mp_head name = mp_read_head(at, end);
        const uint8_t *value = mp_skip(at, end);
        if (value == NULL) {
            return NULL;
        }
        if (name.kind == 's' && name.bytes == strlen(key) &&
            memcmp(at + name.head, key, name.bytes) == 0) {
            return value < end ? value : NULL;
        }
        at = mp_skip(value, end);
    }
    return NULL;
}

/* The integer at `at`; false if it is none. */
static inline bool mp_read_int(const uint8_t *at, const uint8_t *end, int64_t *number) {
    struct mp_head head = mp_read_head(at, end);
    if (head.kind != 'i' || (uint64_t)(end - at) < head.head + head.bytes) {
        return false;
    }
    if (head.bytes == 0) {
        *number = (int8_t)*at;
        return true;
    }
    uint64_t value = mp_big_endian(at + 1, head.bytes);
    if (*at >= 0xd0 && head.bytes < 8 && (value >> (8 * head.bytes - 1)) != 0) {
        value |= ~(uint64_t)0 << (8 * head.bytes);
    }
    *number = (int64_t)value;
    return true;
}

#endif
