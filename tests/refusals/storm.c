/*
 * Many sends at once, some of which the broker refuses: storm HOST MESSAGES EVERY BYTES [GROUP].
 *
 * Sends MESSAGES small messages to a channel of a layer of its own, without waiting, and after each
 * EVERY of them one of BYTES; with GROUP, in place of those, one to that group. Prints what came of
 * all as one JSON object: for each kind the number of outcomes by status, and of the small ones how
 * many arrived, how many twice, and how many out of their order.
 */
#define _GNU_SOURCE

#include "channel_layer.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define WAIT_SECONDS 60

static atomic_int outcomes[2][LAYER_INTERNAL + 1], ended;
static atomic_llong arrived, disordered, last = -1;

static void fail(const char *what, layer_error_t *error) {
    fprintf(stderr, "storm: %s: %s\n", what, layer_error_message(error));
    exit(2);
}

#define MUST(call)                                                                                 \
    do {                                                                                           \
        layer_error_t *error = NULL;                                                               \
        if ((call) != LAYER_OK) {                                                                  \
            fail(#call, error);                                                                    \
        }                                                                                          \
    } while (0)

/* {"n": number}, {"n": number, "b": bytes} */
static size_t encode(uint8_t *to, int64_t number, const uint8_t *bytes, uint32_t length) {
    uint8_t *at = to;
    *at++ = bytes == NULL ? 0x81 : 0x82;
    *at++ = 0xa1;
    *at++ = 'n';
    *at++ = 0xd3;
    for (int shift = 56; shift >= 0; shift -= 8) {
        *at++ = (uint8_t)((uint64_t)number >> shift);
    }
    if (bytes != NULL) {
        *at++ = 0xa1;
        *at++ = 'b';
        *at++ = 0xc6;
        for (int shift = 24; shift >= 0; shift -= 8) {
            *at++ = (uint8_t)(length >> shift);
        }
        memcpy(at, bytes, length);
        at += length;
    }
    return (size_t)(at - to);
}

static void on_done(void *userdata, layer_status_t status, const layer_error_t *error) {
    (void)error;
    atomic_fetch_add(&outcomes[userdata != NULL][status], 1);
    atomic_fetch_add(&ended, 1);
}

/* One callback thread. */
static int32_t on_message(void *userdata, layer_status_t status, const layer_message_t *message) {
    (void)userdata;
    size_t length = 0;
    const uint8_t *data = status == LAYER_OK ? layer_message_data(message, &length) : NULL;
    if (data != NULL && length >= 12) {
        int64_t number = 0;
        for (int i = 4; i < 12; i++) {
            number = (int64_t)((uint64_t)number << 8 | data[i]);
        }
        atomic_fetch_add(&disordered, number <= atomic_load(&last));
        atomic_store(&last, number);
        atomic_fetch_add(&arrived, 1);
    }
    return LAYER_CONTINUE;
}

static bool wait_for(bool (*is_so)(long long), long long what) {
    for (int i = 0; i < WAIT_SECONDS * 1000; i++) {
        if (is_so(what)) {
            return true;
        }
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    return false;
}

static bool have_ended(long long count) { return atomic_load(&ended) >= count; }
static bool have_arrived(long long count) { return atomic_load(&arrived) >= count; }

static void print_outcomes(const char *name, int kind) {
    printf("\"%s\": {", name);
    const char *comma = "";
    for (int status = 0; status <= LAYER_INTERNAL; status++) {
        int count = atomic_load(&outcomes[kind][status]);
        if (count > 0) {
            printf("%s\"%s\": %d", comma, layer_status_name((layer_status_t)status), count);
            comma = ", ";
        }
    }
    printf("}, ");
}

int main(int argc, char **argv) {
    if (argc < 5) {
        fprintf(stderr, "storm HOST MESSAGES EVERY BYTES [GROUP]\n");
        return 2;
    }
    int messages = atoi(argv[2]), every = atoi(argv[3]);
    uint32_t bytes = (uint32_t)strtoul(argv[4], NULL, 10);
    const char *group = argc > 5 ? argv[5] : NULL;
    layer_config_t *config = layer_config_new();
    MUST(layer_config_set(config, "host", argv[1], &error));
    MUST(layer_config_set(config, "remote_capacity", "100000", &error));
    MUST(layer_config_set(config, "local_capacity", "100000", &error));
    MUST(layer_config_set(config, "prefetch_count", "1000", &error));
    layer_t *layer = NULL;
    MUST(layer_new(config, &layer, &error));
    MUST(layer_wait_ready(layer, WAIT_SECONDS * 1000, &error));
    char channel[LAYER_NAME_SIZE];
    MUST(layer_new_channel(layer, NULL, channel, sizeof channel, &error));
    MUST(layer_receive(layer, channel, on_message, NULL, NULL, NULL, &error));

    uint8_t *large = calloc(1, bytes + 1), *message = malloc(bytes + 64);
    int sent = 0;
    static int is_large = 1;
    for (int number = 0; number < messages; number++) {
        size_t length = encode(message, number, NULL, 0);
        MUST(layer_send_async(layer, channel, message, length, on_done, NULL, NULL, &error));
        sent++;
        if (number % every == every - 1) {
            layer_error_t *error = NULL;
            layer_status_t status;
            if (group != NULL) {
                length = encode(message, number, NULL, 0);
                status = layer_group_send_async(layer, group, message, length, on_done, &is_large,
                                                NULL, &error);
            } else {
                length = encode(message, number, large, bytes);
                status = layer_send_async(layer, channel, message, length, on_done, &is_large, NULL,
                                          &error);
            }
            if (status == LAYER_OK) {
                sent++;
            } else { /* What the layer knows to be too large is refused at once. */
                atomic_fetch_add(&outcomes[1][status], 1);
                layer_error_free(error);
            }
        }
    }
    bool is_over = wait_for(have_ended, sent);
    wait_for(have_arrived, atomic_load(&outcomes[0][LAYER_OK]));
    uint64_t generation = 0;
    MUST(layer_stat(layer, LAYER_STAT_GENERATION, &generation, &error));
    putchar('{');
    print_outcomes("small", 0);
    print_outcomes("doubtful", 1);
    printf("\"arrived\": %lld, \"disordered\": %lld, \"generation\": %" PRIu64
           ", \"is_over\": %s}\n",
           atomic_load(&arrived), atomic_load(&disordered), generation, is_over ? "true" : "false");
    layer_free(layer);
    layer_config_free(config);
    free(large);
    free(message);
    return 0;
}
