/*
 * Defects of the library, planted: to be preloaded before it, so that the fault tests show that
 * they would find them. PLANTED names the defect; each 10th call has it.
 */
#define _GNU_SOURCE

#include "channel_layer.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool is_planted(const char *defect) {
    const char *wanted = getenv("PLANTED");
    return wanted != NULL && strcmp(wanted, defect) == 0;
}

static bool planted(const char *defect) {
    static _Thread_local unsigned calls;
    return is_planted(defect) && ++calls % 10 == 0;
}

#define REAL(function) ((__typeof__(&function))dlsym(RTLD_NEXT, #function))

layer_status_t layer_send(const layer_t *layer, const char *channel, const uint8_t *message,
                          size_t length, layer_error_t **error) {
    static pid_t parent;
    parent = parent == 0 ? getpid() : parent;
    if (parent != getpid() && is_planted("unforked")) {
        return LAYER_DISCONNECTED; /* the layer is of the parent */
    }
    if (planted("lie")) {
        return LAYER_OK; /* nothing was sent */
    }
    if (planted("hang")) {
        usleep(7000000);
    }
    if (planted("duplicate")) {
        (void)!REAL(layer_send)(layer, channel, message, length, NULL);
    }
    layer_status_t status = REAL(layer_send)(layer, channel, message, length, error);
    if (status == LAYER_OK && planted("denial")) {
        return LAYER_DISCONNECTED; /* it was sent */
    }
    return status;
}

/* Receivers, wrapped: what arrives is dropped, or comes late. */
struct receiver {
    layer_receive_cb callback;
    layer_destroy_cb destroy;
    void *userdata;
    layer_message_t *kept;
    unsigned taken;
};

/* Who sent it: 101 is the last message to a channel, which load.c waits for, and 200 the control
 * client of chaos, which looks for deafness. */
static int sender_of(const layer_message_t *message) {
    size_t length;
    const uint8_t *data = layer_message_data(message, &length);
    return length > 22 ? data[22] : 0;
}

static int32_t receive(void *userdata, layer_status_t status, const layer_message_t *message) {
    struct receiver *receiver = userdata;
    bool spared = message == NULL || sender_of(message) == 101;
    if (!spared && sender_of(message) != 200 && planted("loss")) {
        return LAYER_CONTINUE;
    }
    if (!spared && is_planted("deafness") && ++receiver->taken > 50) {
        return LAYER_CONTINUE;
    }
    if (!spared && receiver->kept == NULL && planted("disorder")) {
        receiver->kept = layer_message_ref(message);
        return LAYER_CONTINUE;
    }
    int32_t flow = receiver->callback(receiver->userdata, status, message);
    if (message != NULL && receiver->kept != NULL) {
        flow = receiver->callback(receiver->userdata, status, receiver->kept);
        layer_message_free(receiver->kept);
        receiver->kept = NULL;
    }
    return flow;
}

static void destroy_receiver(void *userdata) {
    struct receiver *receiver = userdata;
    receiver->destroy(receiver->userdata);
    layer_message_free(receiver->kept);
    free(receiver);
}

layer_status_t layer_receive(const layer_t *layer, const char *channel, layer_receive_cb callback,
                             void *userdata, layer_destroy_cb destroy, uint64_t *id,
                             layer_error_t **error) {
    struct receiver *receiver = malloc(sizeof *receiver);
    *receiver = (struct receiver){callback, destroy, userdata, NULL, 0};
    return REAL(layer_receive)(layer, channel, receive, receiver, destroy_receiver, id, error);
}

/* Outcomes, wrapped: told twice, or never; or their userdata leaks. */
struct outcome {
    layer_done_cb done;
    layer_destroy_cb destroy;
    void *userdata;
};

static void done(void *userdata, layer_status_t status, const layer_error_t *error) {
    struct outcome *outcome = userdata;
    if (planted("silence")) {
        return;
    }
    outcome->done(outcome->userdata, status, error);
    if (planted("echo")) {
        outcome->done(outcome->userdata, status, error);
    }
}

static void destroy_outcome(void *userdata) {
    struct outcome *outcome = userdata;
    if (planted("undestroyed")) {
        return;
    }
    outcome->destroy(outcome->userdata);
    free(outcome);
}

layer_status_t layer_send_async(const layer_t *layer, const char *channel, const uint8_t *message,
                                size_t length, layer_done_cb callback, void *userdata,
                                layer_destroy_cb destroy, layer_error_t **error) {
    struct outcome *outcome = malloc(sizeof *outcome);
    *outcome = (struct outcome){callback, destroy, userdata};
    layer_status_t status = REAL(layer_send_async)(layer, channel, message, length, done, outcome,
                                                   destroy_outcome, error);
    if (status != LAYER_OK) {
        free(outcome);
    }
    return status;
}

/* States, wrapped: of a layer that was connected before, nobody is told that it is ready again. */
struct watcher {
    layer_state_cb callback;
    layer_destroy_cb destroy;
    void *userdata;
};

static void watch(void *userdata, layer_state_t state, uint64_t generation) {
    struct watcher *watcher = userdata;
    if (state == LAYER_STATE_READY && generation > 1 && is_planted("unready")) {
        return;
    }
    watcher->callback(watcher->userdata, state, generation);
}

static void destroy_watcher(void *userdata) {
    struct watcher *watcher = userdata;
    watcher->destroy(watcher->userdata);
    free(watcher);
}

layer_status_t layer_config_on_state(layer_config_t *config, layer_state_cb callback,
                                     void *userdata, layer_destroy_cb destroy,
                                     layer_error_t **error) {
    struct watcher *watcher = malloc(sizeof *watcher);
    *watcher = (struct watcher){callback, destroy, userdata};
    return REAL(layer_config_on_state)(config, watch, watcher, destroy_watcher, error);
}
