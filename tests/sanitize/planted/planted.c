/*
 * Bugs that the sanitizers must find: planted BUG. Each is a host's wrong use of the C API, made in
 * a callback of the library or seen by the library's own code, so that finding it shows that the
 * tool looks there. Without a bug (`planted none`) the same calls are in order, and nothing may be
 * found. What was found is in the tool's report; the exit status is 0 where nothing went wrong.
 */
#define _POSIX_C_SOURCE 200809L

#include "channel_layer.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MESSAGES 200
#define WAIT_MS 60000

static const uint8_t message_bytes[] = "\x81\xa4type\xa4test";
enum { MESSAGE_LENGTH = sizeof message_bytes - 1 };

enum bug {
    NONE,
    FREED_USERDATA,
    FREED_MESSAGE,
    LEAKED_USERDATA,
    LEAKED_MESSAGE,
    RACED_COUNT,
    RACED_BYTES
};
static const char *const bugs[] = {
    "none",           "freed-userdata", "freed-message", "leaked-userdata",
    "leaked-message", "raced-count",    "raced-bytes"};
static enum bug bug;
static layer_t *layer;
static char channel[LAYER_NAME_SIZE];

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static unsigned received; /* under the lock */
static unsigned counted;  /* under the lock, but for the bug */

static void must(bool condition, const char *what) {
    if (!condition) {
        fprintf(stderr, "planted %s: %s failed\n", bugs[bug], what);
        _Exit(1);
    }
}
#define MUST(call) must((call) == LAYER_OK, #call)

static void wait_received(unsigned count) {
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += WAIT_MS / 1000;
    pthread_mutex_lock(&lock);
    while (received < count) {
        must(pthread_cond_timedwait(&changed, &lock, &until) == 0, "receiving in time");
    }
    pthread_mutex_unlock(&lock);
}

/* Their names are what a report is known by, so they must not be inlined. */

__attribute__((noinline)) static void count_without_lock(void) { counted++; }

__attribute__((noinline)) static void overwrite_bytes(uint8_t *bytes) {
    ((volatile uint8_t *)bytes)[MESSAGE_LENGTH - 1] = 't';
}

__attribute__((noinline)) static unsigned *allocate_userdata(void) {
    unsigned *userdata = malloc(sizeof *userdata);
    must(userdata != NULL, "malloc");
    *userdata = 7;
    return userdata;
}

static int32_t on_message(void *userdata, layer_status_t status, const layer_message_t *message) {
    if (status != LAYER_OK || message == NULL) {
        return LAYER_STOP;
    }
    (void)*(const volatile unsigned *)userdata;
    if (bug == RACED_COUNT) {
        count_without_lock();
    }
    pthread_mutex_lock(&lock);
    if (bug != RACED_COUNT) {
        counted++;
    }
    received++;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
    return LAYER_CONTINUE;
}

static void begin_receiver(void) {
    unsigned *userdata = allocate_userdata();
    bool destroyed_by_library = bug != LEAKED_USERDATA && bug != FREED_USERDATA;
    MUST(layer_receive(layer, channel, on_message, userdata, destroyed_by_library ? free : NULL,
                       NULL, NULL));
    if (bug == FREED_USERDATA) {
        free(userdata);
    }
}

static void pull_one(const char *from) {
    layer_message_t *message = NULL;
    size_t length = 0;
    MUST(layer_send(layer, from, message_bytes, MESSAGE_LENGTH, NULL));
    MUST(layer_receive_next(layer, from, WAIT_MS, &message, NULL));
    if (bug == LEAKED_MESSAGE) {
        return;
    }
    if (bug == FREED_MESSAGE) {
        layer_message_free(message);
    }
    (void)layer_message_data(message, &length);
    if (bug != FREED_MESSAGE) {
        layer_message_free(message);
    }
}

/* In a thread of its own, whose stack is gone when the leaks are looked for. */
static void *receive_and_pull(void *unused) {
    char pulled[LAYER_NAME_SIZE];
    (void)unused;
    MUST(layer_new_channel(layer, "pulled", pulled, sizeof pulled, NULL));
    begin_receiver();
    pull_one(pulled);
    return NULL;
}

/* Relaxed, so that they order nothing but the time: the overwriting has begun before the first
 * message is sent, and goes on until the last was. */
static atomic_bool overwriting, sent;

static void *overwrite(void *bytes) {
    while (!atomic_load_explicit(&sent, memory_order_relaxed)) {
        overwrite_bytes(bytes);
        atomic_store_explicit(&overwriting, true, memory_order_relaxed);
    }
    return NULL;
}

int main(int argc, char **argv) {
    for (; (size_t)bug < sizeof bugs / sizeof *bugs; bug++) {
        if (argc == 2 && strcmp(argv[1], bugs[bug]) == 0) {
            break;
        }
    }
    if ((size_t)bug == sizeof bugs / sizeof *bugs) {
        fputs("usage: planted none|freed-userdata|freed-message|leaked-userdata|leaked-message|"
              "raced-count|raced-bytes\n",
              stderr);
        return 2;
    }

    layer_config_t *config = layer_config_new();
    pthread_t thread, overwriter;
    uint8_t bytes[MESSAGE_LENGTH];
    memcpy(bytes, message_bytes, sizeof bytes);
    MUST(layer_config_set(config, "host", "memory://planted", NULL));
    MUST(layer_config_set(config, "local_capacity", "1000", NULL));
    MUST(layer_new(config, &layer, NULL));
    layer_config_free(config);
    MUST(layer_new_channel(layer, NULL, channel, sizeof channel, NULL));
    must(pthread_create(&thread, NULL, receive_and_pull, NULL) == 0, "pthread_create");
    must(pthread_join(thread, NULL) == 0, "pthread_join");

    if (bug == RACED_BYTES) {
        must(pthread_create(&overwriter, NULL, overwrite, bytes) == 0, "pthread_create");
        while (!atomic_load_explicit(&overwriting, memory_order_relaxed)) {
            sched_yield();
        }
    }
    for (unsigned i = 0; i < MESSAGES; i++) {
        MUST(layer_send(layer, channel, bytes, sizeof bytes, NULL));
        if (bug == RACED_COUNT) {
            count_without_lock();
        }
    }
    atomic_store_explicit(&sent, true, memory_order_relaxed);
    if (bug == RACED_BYTES) {
        must(pthread_join(overwriter, NULL) == 0, "pthread_join");
    }
    wait_received(MESSAGES);
    MUST(layer_close(layer, WAIT_MS, NULL));
    layer_free(layer);
    return 0;
}
