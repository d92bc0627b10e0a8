#include "shim.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    cl_event *at;
    size_t count;
    size_t room;
} event_list;

struct cl_sink {
    atomic_int references;
    pthread_mutex_t mutex;
    event_list coming; /* under the mutex */
    event_list taken;  /* of the thread in cl_drain */
};

/* A callback has no one to tell that memory is exhausted; Go ends a program for it too. */
static void out_of_memory(void) {
    fputs("channellayer: out of memory\n", stderr);
    abort();
}

cl_sink *cl_sink_new(void) {
    cl_sink *sink = calloc(1, sizeof *sink);
    if (sink == NULL) {
        out_of_memory();
    }
    atomic_init(&sink->references, 1);
    pthread_mutex_init(&sink->mutex, NULL);
    return sink;
}

static void free_texts(event_list *list) {
    for (size_t i = 0; i < list->count; i++) {
        free((void *)list->at[i].id);
        free((void *)list->at[i].text);
        free((void *)list->at[i].more);
    }
}

void cl_sink_release(cl_sink *sink) {
    if (atomic_fetch_sub(&sink->references, 1) != 1) {
        return;
    }
    free_texts(&sink->coming); /* those that were taken have been freed by who took them */
    free(sink->coming.at);
    free(sink->taken.at);
    pthread_mutex_destroy(&sink->mutex);
    free(sink);
}

static void on_destroy(void *userdata) { cl_sink_release(userdata); }

static void put(cl_sink *sink, cl_event event) {
    pthread_mutex_lock(&sink->mutex);
    event_list *list = &sink->coming;
    if (list->count == list->room) {
        list->room = list->room == 0 ? 64 : list->room * 2;
        list->at = realloc(list->at, list->room * sizeof *list->at);
        if (list->at == NULL) {
            out_of_memory();
        }
    }
    list->at[list->count++] = event;
    pthread_mutex_unlock(&sink->mutex);
}

static uintptr_t copy_of(const char *text) {
    char *copy = strdup(text);
    if (copy == NULL) {
        out_of_memory();
    }
    return (uintptr_t)copy;
}

/* --- callbacks ---------------------------------------------------------------------------- */

/* The userdata of a call; the sink outlives it, since layer_free has ended all calls before. */
typedef struct {
    cl_sink *sink;
    uint64_t token;
} call_t;

static call_t *new_call(cl_sink *sink, uint64_t token) {
    call_t *call = malloc(sizeof *call);
    if (call == NULL) {
        out_of_memory();
    }
    *call = (call_t){sink, token};
    return call;
}

static void on_done(void *userdata, layer_status_t status, const layer_error_t *error) {
    call_t *call = userdata;
    put(call->sink, (cl_event){
                        .kind = CL_DONE,
                        .status = status,
                        .token = call->token,
                        .text = error == NULL ? 0 : copy_of(layer_error_message(error)),
                    });
    free(call);
}

static int32_t on_wake(void *userdata, layer_status_t status, const layer_message_t *message) {
    call_t *call = userdata;
    (void)message;
    put(call->sink, (cl_event){.kind = CL_WAKE, .status = status, .token = call->token});
    return LAYER_DECLINE;
}

static void on_log(void *userdata, layer_log_level_t level, const char *id, const char *target,
                   const char *message) {
    put(userdata, (cl_event){
                      .kind = CL_LOG,
                      .status = level,
                      .text = copy_of(message),
                      .more = copy_of(target),
                      .id = copy_of(id),
                  });
}

static void on_state(void *userdata, layer_state_t state, uint64_t generation) {
    put(userdata, (cl_event){.kind = CL_STATE, .status = state, .number = generation});
}

static void on_isolation(void *userdata, layer_isolation_t event, const char *channel,
                         uint64_t count) {
    put(userdata, (cl_event){
                      .kind = CL_ISOLATION,
                      .status = event,
                      .text = channel == NULL ? 0 : copy_of(channel),
                      .number = count,
                  });
}

/* --- calls -------------------------------------------------------------------------------- */

cl_result cl_config_callbacks(layer_config_t *config, cl_sink *sink) {
    cl_result result = {LAYER_OK, NULL};
    atomic_fetch_add(&sink->references, 1);
    result.status = layer_config_on_log(config, on_log, sink, on_destroy, &result.error);
    if (result.status == LAYER_OK) {
        atomic_fetch_add(&sink->references, 1);
        result.status = layer_config_on_state(config, on_state, sink, on_destroy, &result.error);
    }
    if (result.status == LAYER_OK) {
        atomic_fetch_add(&sink->references, 1);
        result.status =
            layer_config_on_isolation(config, on_isolation, sink, on_destroy, &result.error);
    }
    if (result.status != LAYER_OK) {
        cl_sink_release(sink); /* a call that failed has taken nothing */
    }
    return result;
}

cl_drained cl_drain(const layer_t *layer, cl_sink *sink, size_t max) {
    cl_drained drained = {0};
    drained.status = layer_poll(layer, max, 0, &drained.ran, NULL);
    pthread_mutex_lock(&sink->mutex);
    event_list taken = sink->coming;
    sink->coming = sink->taken;
    sink->coming.count = 0;
    pthread_mutex_unlock(&sink->mutex);
    sink->taken = taken;
    drained.events = taken.at;
    drained.count = taken.count;
    return drained;
}

cl_result cl_send(const layer_t *layer, cl_sink *sink, int to_group, const char *name,
                  const uint8_t *message, size_t length, uint64_t token) {
    cl_result result = {LAYER_OK, NULL};
    call_t *call = new_call(sink, token);
    result.status = (to_group ? layer_group_send_async : layer_send_async)(
        layer, name, message, length, on_done, call, NULL, &result.error);
    if (result.status != LAYER_OK) {
        free(call);
    }
    return result;
}

cl_result cl_send_json(const layer_t *layer, cl_sink *sink, int to_group, const char *name,
                       const char *json, uint64_t token) {
    cl_result result = {LAYER_OK, NULL};
    call_t *call = new_call(sink, token);
    result.status = (to_group ? layer_group_send_json_async : layer_send_json_async)(
        layer, name, json, on_done, call, NULL, &result.error);
    if (result.status != LAYER_OK) {
        free(call);
    }
    return result;
}

cl_result cl_close(const layer_t *layer, cl_sink *sink, uint32_t timeout_ms, uint64_t token) {
    cl_result result = {LAYER_OK, NULL};
    call_t *call = new_call(sink, token);
    result.status = layer_close_async(layer, timeout_ms, on_done, call, NULL, &result.error);
    if (result.status != LAYER_OK) {
        free(call);
    }
    return result;
}

cl_result cl_group_add(const layer_t *layer, cl_sink *sink, const char *group, const char *channel,
                       uint64_t token) {
    cl_result result = {LAYER_OK, NULL};
    call_t *call = new_call(sink, token);
    result.status =
        layer_group_add_async(layer, group, channel, on_done, call, NULL, &result.error);
    if (result.status != LAYER_OK) {
        free(call);
    }
    return result;
}

cl_received cl_wake(const layer_t *layer, cl_sink *sink, const char *channel, uint64_t token) {
    cl_received received = {{LAYER_OK, NULL}, 0};
    call_t *call = new_call(sink, token);
    received.result.status = layer_receive(layer, channel, on_wake, call, free, &received.receiver,
                                           &received.result.error);
    if (received.result.status != LAYER_OK) {
        free(call);
    }
    return received;
}

cl_pulled cl_pull(const layer_t *layer, const char *channel) {
    cl_pulled pulled = {{LAYER_OK, NULL}, NULL, NULL, 0};
    pulled.result.status =
        layer_receive_next(layer, channel, 0, &pulled.message, &pulled.result.error);
    if (pulled.result.status == LAYER_OK) {
        pulled.data = layer_message_data(pulled.message, &pulled.length);
    }
    return pulled;
}
