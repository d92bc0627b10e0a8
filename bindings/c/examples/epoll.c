/*
 * The channel layer inside an event loop: with option dispatch=poll every callback runs in
 * layer_poll, on the loop's own thread, so that the program needs no lock.
 *
 *     epoll [HOST]      HOST as in chat.c; default memory://demo
 *
 * A channel joins a group. Once the group is routed here, a timer sends five messages to it; they
 * come back, and the loop ends when each was confirmed and received. The exit status says whether.
 */

#define _GNU_SOURCE

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "channel_layer.h"

#define TICKS 5
#define TICK_MS 100
#define CLOSE_MS 10000
/* How many callbacks run before the loop looks after its other descriptors again. */
#define POLL_MAX 64
/* A loop that hears nothing for so long gives up. */
#define SILENCE_MS 20000

typedef struct {
    layer_t *layer;
    char channel[LAYER_NAME_SIZE];
    char group[LAYER_NAME_SIZE + 8];
    int timer;
    int sent;
    int confirmed;
    int received;
    bool failed;
} loop_t;

static void fail(loop_t *loop, const char *what, const char *why) {
    fprintf(stderr, "epoll: cannot %s: %s\n", what, why);
    loop->failed = true;
}

/* Takes the error of a call that failed. */
static void fail_with(loop_t *loop, const char *what, layer_error_t *error) {
    fail(loop, what, layer_error_message(error));
    layer_error_free(error);
}

/* --- callbacks: they run in layer_poll, on the loop's thread ------------------------------ */

static int32_t on_message(void *userdata, layer_status_t status, const layer_message_t *message) {
    loop_t *loop = userdata;
    const char *json;
    layer_error_t *error = NULL;
    if (status != LAYER_OK) {
        return LAYER_STOP; /* the layer closes */
    }
    if (layer_message_json(message, &json, &error) != LAYER_OK) {
        fail_with(loop, "read a message", error);
        return LAYER_STOP;
    }
    loop->received++;
    printf("received %s\n", json);
    return LAYER_CONTINUE;
}

static void on_sent(void *userdata, layer_status_t status, const layer_error_t *error) {
    loop_t *loop = userdata;
    if (status == LAYER_OK) {
        loop->confirmed++;
    } else {
        fail(loop, "send", layer_error_message(error)); /* lent to us: not to be freed */
    }
}

/* From here on a message to the group comes here: the timer may begin. */
static void on_joined(void *userdata, layer_status_t status, const layer_error_t *error) {
    loop_t *loop = userdata;
    const struct itimerspec every = {
        .it_value.tv_nsec = TICK_MS * 1000000L,
        .it_interval.tv_nsec = TICK_MS * 1000000L,
    };
    if (status != LAYER_OK) {
        fail(loop, "join the group", layer_error_message(error));
    } else if (timerfd_settime(loop->timer, 0, &every, NULL) != 0) {
        fail(loop, "start the timer", strerror(errno));
    }
}

/* --- events of the loop ------------------------------------------------------------------- */

static void on_layer_readable(loop_t *loop) {
    layer_error_t *error = NULL;
    /* What is left after POLL_MAX keeps the descriptor readable. */
    if (layer_poll(loop->layer, POLL_MAX, 0, NULL, &error) != LAYER_OK) {
        fail_with(loop, "run callbacks", error);
    }
}

static void on_timer(loop_t *loop) {
    uint64_t expirations;
    const struct itimerspec never = {0};
    if (read(loop->timer, &expirations, sizeof expirations) != sizeof expirations) {
        if (errno != EAGAIN) {
            fail(loop, "read the timer", strerror(errno));
        }
        return;
    }
    char message[64];
    layer_error_t *error = NULL;
    /* As MessagePack: {"type": "tick", "number": 1}. The async calls take that form only; a
     * library such as msgpack-c writes it for a program with more to say. */
    int length =
        snprintf(message, sizeof message, "\x82\xa4type\xa4tick\xa6number%c", ++loop->sent);
    if (layer_group_send_async(loop->layer, loop->group, (const uint8_t *)message, (size_t)length,
                               on_sent, loop, NULL, &error) != LAYER_OK) {
        fail_with(loop, "send", error);
    }
    if (loop->sent == TICKS && timerfd_settime(loop->timer, 0, &never, NULL) != 0) {
        fail(loop, "stop the timer", strerror(errno));
    }
}

static bool watch(int epoll, int descriptor) {
    struct epoll_event event = {.events = EPOLLIN, .data.fd = descriptor};
    return epoll_ctl(epoll, EPOLL_CTL_ADD, descriptor, &event) == 0;
}

static void run(loop_t *loop) {
    int layer = layer_fd(loop->layer);
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0 || !watch(epoll, layer) || !watch(epoll, loop->timer)) {
        fail(loop, "set up epoll", strerror(errno));
    }
    while (!loop->failed && (loop->received < TICKS || loop->confirmed < TICKS)) {
        struct epoll_event events[2];
        int count = epoll_wait(epoll, events, 2, SILENCE_MS);
        if (count == 0) {
            fail(loop, "go on", "nothing has happened for a long time");
        } else if (count < 0 && errno != EINTR) {
            fail(loop, "wait", strerror(errno));
        }
        for (int i = 0; i < count; i++) {
            if (events[i].data.fd == layer) {
                on_layer_readable(loop);
            } else {
                on_timer(loop);
            }
        }
    }
    if (epoll >= 0) {
        close(epoll);
    }
}

static void open_layer(loop_t *loop, const char *host) {
    layer_error_t *error = NULL;
    layer_config_t *config = layer_config_new();
    if (config == NULL) {
        fail(loop, "open a layer", "out of memory");
        return;
    }
    if (layer_config_set(config, "host", host, &error) != LAYER_OK ||
        layer_config_set(config, "dispatch", "poll", &error) != LAYER_OK ||
        layer_new(config, &loop->layer, &error) != LAYER_OK) {
        fail_with(loop, "open a layer", error);
    }
    layer_config_free(config);
}

/* Nothing here waits, not for the broker either: the outcome comes to on_joined. */
static void join(loop_t *loop) {
    layer_error_t *error = NULL;
    if (layer_new_channel(loop->layer, NULL, loop->channel, sizeof loop->channel, &error) !=
            LAYER_OK ||
        layer_receive(loop->layer, loop->channel, on_message, loop, NULL, NULL, &error) !=
            LAYER_OK) {
        fail_with(loop, "receive", error);
        return;
    }
    /* A group of this run, since others may be running this program on the same broker. */
    snprintf(loop->group, sizeof loop->group, "ticks.%s", strchr(loop->channel, '!') + 1);
    if (layer_group_add_async(loop->layer, loop->group, loop->channel, on_joined, loop, NULL,
                              &error) != LAYER_OK) {
        fail_with(loop, "join the group", error);
    }
}

int main(int argc, char **argv) {
    loop_t loop = {.timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)};
    layer_error_t *error = NULL;
    if (argc > 2) {
        fprintf(stderr, "usage: %s [HOST]\n", argv[0]);
        return 2;
    }
    if (loop.timer < 0) {
        fail(&loop, "make a timer", strerror(errno));
    }
    open_layer(&loop, argc == 2 ? argv[1] : "memory://demo");
    if (!loop.failed) {
        join(&loop);
    }
    if (!loop.failed) {
        run(&loop);
    }
    /* Runs what is due: the receiver's last call, above. */
    if (loop.layer != NULL && layer_close(loop.layer, CLOSE_MS, &error) != LAYER_OK) {
        fail_with(&loop, "close the layer", error);
    }
    layer_free(loop.layer);
    if (loop.timer >= 0) {
        close(loop.timer);
    }
    return !loop.failed && loop.received == TICKS ? 0 : 1;
}
