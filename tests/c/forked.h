/*
 * What a forked child hears of its parent's layers: LAYER_FORKED, from every call. For a child that
 * may have no lock of its parent's, so it takes none and asserts nothing.
 */
#ifndef FORKED_H
#define FORKED_H

#include "channel_layer.h"

#include <stdlib.h>

static inline int32_t forked_never_receives(void *userdata, layer_status_t status,
                                            const layer_message_t *message) {
    (void)userdata;
    (void)status;
    (void)message;
    abort();
}

static inline void forked_is_never_done(void *userdata, layer_status_t status,
                                        const layer_error_t *error) {
    (void)userdata;
    (void)status;
    (void)error;
    abort();
}

/* 0, or the number of the first call that was not refused as it should be. `polled` is a layer with
 * `dispatch=poll`. The layers are still to be freed. */
static inline int forked_call_not_refused(layer_t *layer, layer_t *polled, const char *channel,
                                          const char *group) {
    static const uint8_t message[] = {0x81, 0xa1, 'n', 0x01};
    const size_t length = sizeof message;
    layer_error_t *error = NULL;
    layer_message_t *received = NULL;
    layer_state_t state;
    uint64_t number;
    char name[LAYER_NAME_SIZE];
    int call = 0, descriptor = -1;
#define FORKED(expression)                                                                         \
    do {                                                                                           \
        call++;                                                                                    \
        if ((expression) != LAYER_FORKED || layer_error_status(error) != LAYER_FORKED) {           \
            return call;                                                                           \
        }                                                                                          \
        layer_error_free(error);                                                                   \
        error = NULL;                                                                              \
    } while (0)
    FORKED(layer_wait_ready(layer, 0, &error));
    FORKED(layer_wait_ready(layer, 1000, &error));
    FORKED(layer_state(layer, &state, &error));
    FORKED(layer_stat(layer, LAYER_STAT_BACKLOG, &number, &error));
    FORKED(layer_new_channel(layer, NULL, name, sizeof name, &error));
    FORKED(layer_send(layer, channel, message, length, &error));
    FORKED(layer_send_json(layer, channel, "{}", &error));
    FORKED(layer_group_send(layer, group, message, length, &error));
    FORKED(layer_group_send_json(layer, group, "{}", &error));
    FORKED(layer_send_async(layer, channel, message, length, forked_is_never_done, NULL, NULL,
                            &error));
    FORKED(layer_group_send_async(layer, group, message, length, forked_is_never_done, NULL, NULL,
                                  &error));
    FORKED(layer_send_json_async(layer, channel, "{}", forked_is_never_done, NULL, NULL, &error));
    FORKED(
        layer_group_send_json_async(layer, group, "{}", forked_is_never_done, NULL, NULL, &error));
    FORKED(layer_receive(layer, channel, forked_never_receives, NULL, NULL, &number, &error));
    FORKED(layer_receive_cancel(layer, 1, &error));
    FORKED(layer_receive_next(layer, channel, 0, &received, &error));
    FORKED(layer_receive_next(layer, channel, 1000, &received, &error));
    FORKED(layer_channel_discard(layer, channel, &error));
    FORKED(layer_group_add(layer, group, channel, &error));
    FORKED(layer_group_add_async(layer, group, channel, forked_is_never_done, NULL, NULL, &error));
    FORKED(layer_group_discard(layer, group, channel, &error));
    FORKED(layer_fd_dup(polled, &descriptor, &error));
    FORKED(layer_poll(polled, 0, 0, NULL, &error));
    FORKED(layer_poll(polled, 0, 1000, NULL, &error));
    FORKED(layer_close(layer, 1000, &error));
    FORKED(layer_close_async(layer, 1000, forked_is_never_done, NULL, NULL, &error));
#undef FORKED
    if (layer_fd(polled) != -1) {
        return call + 1;
    }
    if (layer_send(layer, channel, message, length, NULL) != LAYER_FORKED) {
        return call + 2;
    }
    return 0;
}

#endif
