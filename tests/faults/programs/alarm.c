/*
 * What goes on while the broker blocks publishers: alarm HOST
 *
 * Fills a queue, says `filled`, and on a line of input (the alarm is on) says what each call came
 * to; on the next (the alarm is off) whether sends work again.
 */
#define _GNU_SOURCE

#include "channel_layer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* {"n": 0}: what is in it does not matter here. */
static const uint8_t message[] = {0x81, 0xa1, 'n', 0x00};

/* Of them the receiver holds 20 in memory; the rest waits on the broker. */
#define MESSAGES 60

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static layer_t *open_layer(const char *host) {
    const char *const options[][2] = {
        {"host", host},           {"timeout", "1"},        {"local_capacity", "10"},
        {"prefetch_count", "10"}, {"max_in_flight", "50"},
    };
    layer_config_t *config = layer_config_new();
    layer_t *layer = NULL;
    for (size_t i = 0; i < sizeof options / sizeof *options; i++) {
        if (layer_config_set(config, options[i][0], options[i][1], NULL) != LAYER_OK) {
            exit(2);
        }
    }
    if (layer_new(config, &layer, NULL) != LAYER_OK ||
        layer_wait_ready(layer, 20000, NULL) != LAYER_OK) {
        exit(2);
    }
    layer_config_free(config);
    return layer;
}

static void wait_for_line(void) {
    char line[10];
    if (fgets(line, sizeof line, stdin) == NULL) {
        exit(2);
    }
}

/* `NAME STATUS SECONDS`, on a line of its own. */
#define TELL(name, call)                                                                           \
    do {                                                                                           \
        double begin_ = now();                                                                     \
        layer_status_t status_ = (call);                                                           \
        printf("%s %s %.3f\n", name, layer_status_name(status_), now() - begin_);                  \
        fflush(stdout);                                                                            \
    } while (0)

int main(int argc, char **argv) {
    if (argc != 2) {
        return 2;
    }
    layer_t *sender = open_layer(argv[1]), *closed = open_layer(argv[1]);
    layer_t *receiver = open_layer(argv[1]);
    char channel[128];
    uint64_t blocked = 0, closed_blocked = 0;
    if (layer_new_channel(receiver, NULL, channel, sizeof channel, NULL) != LAYER_OK) {
        return 2;
    }
    for (int i = 0; i < MESSAGES; i++) {
        if (layer_send(sender, channel, message, sizeof message, NULL) != LAYER_OK) {
            return 2;
        }
    }
    printf("filled\n");
    fflush(stdout);

    wait_for_line();
    /* The broker tells a connection that it is blocked when it next publishes. */
    TELL("first_send", layer_send(sender, channel, message, sizeof message, NULL));
    TELL("closed_send", layer_send(closed, channel, message, sizeof message, NULL));
    for (double until = now() + 5; (!blocked || !closed_blocked) && now() < until; usleep(1000)) {
        if (layer_stat(sender, LAYER_STAT_PUBLISHERS_BLOCKED, &blocked, NULL) != LAYER_OK ||
            layer_stat(closed, LAYER_STAT_PUBLISHERS_BLOCKED, &closed_blocked, NULL) != LAYER_OK) {
            return 2;
        }
    }
    printf("blocked %llu %llu\n", (unsigned long long)blocked, (unsigned long long)closed_blocked);
    TELL("blocked_send", layer_send(sender, channel, message, sizeof message, NULL));

    double begin = now();
    int received = 0;
    for (layer_message_t *taken; received < MESSAGES; received++) {
        if (layer_receive_next(receiver, channel, 5000, &taken, NULL) != LAYER_OK) {
            break;
        }
        layer_message_free(taken);
    }
    printf("received %d %.3f\n", received, now() - begin);
    TELL("group_add", layer_group_add(receiver, "alarm", channel, NULL));
    TELL("close", layer_close(closed, 1000, NULL));
    layer_free(closed);

    printf("done\n");
    fflush(stdout);
    wait_for_line();
    layer_status_t status = LAYER_BUSY;
    for (double until = now() + 20; status != LAYER_OK && now() < until;) {
        status = layer_send(sender, channel, message, sizeof message, NULL);
    }
    TELL("send_afterwards", status);
    TELL("close_afterwards", layer_close(sender, 5000, NULL));
    layer_free(sender);
    layer_free(receiver);
    return 0;
}
