/*
 * What stands between Go and the C API: callbacks that never enter Go. They put what happened on a
 * list, and Go takes the list in one call, however long it is. Go is known here by numbers
 * (tokens) alone; no Go pointer is kept.
 */

#ifndef CHANNELLAYER_SHIM_H
#define CHANNELLAYER_SHIM_H

#include <channel_layer.h>

/* What an event tells. */
enum {
    CL_DONE,  /* the outcome of the async call `token`: `status`, and `text` where it failed */
    CL_WAKE,  /* the receiver `token` has ended: LAYER_OK, a message is there to be pulled */
    CL_LOG,   /* `status` is the level, `text` the message, `more` the target, `id` */
    CL_STATE, /* `status` is the state, `number` the generation */
    /* `status` is what isolation does, `text` the channel or 0, `number` the count */
    CL_ISOLATION,
};

/* `text`, `more` and `id` are pointers, to be freed by the one who takes the event. They are
 * written as numbers so that cgo has no pointers to look for in the list. */
typedef struct {
    uint64_t token;
    uint64_t number;
    uintptr_t text;
    uintptr_t more;
    uintptr_t id;
    int32_t kind;
    int32_t status;
} cl_event;

typedef struct cl_sink cl_sink;

/* How a call ended; `error` is NULL with LAYER_OK. By value, since an output in Go's memory would
 * be allocated for each call. */
typedef struct {
    layer_status_t status;
    layer_error_t *error;
} cl_result;

typedef struct {
    cl_result result;
    layer_message_t *message;
    const uint8_t *data;
    size_t length;
} cl_pulled;

typedef struct {
    cl_result result;
    uint64_t receiver;
} cl_received;

typedef struct {
    layer_status_t status;
    size_t ran;
    /* Lives until the next cl_drain of this sink. */
    const cl_event *events;
    size_t count;
} cl_drained;

/* One reference is the caller's, to be given back by cl_sink_release; each callback of a config has
 * one more. */
cl_sink *cl_sink_new(void);
void cl_sink_release(cl_sink *sink);

cl_result cl_config_callbacks(layer_config_t *config, cl_sink *sink);

/* Runs the callbacks that are due and takes all events. One thread at a time. */
cl_drained cl_drain(const layer_t *layer, cl_sink *sink, size_t max);

cl_result cl_send(const layer_t *layer, cl_sink *sink, int to_group, const char *name,
                  const uint8_t *message, size_t length, uint64_t token);
cl_result cl_send_json(const layer_t *layer, cl_sink *sink, int to_group, const char *name,
                       const char *json, uint64_t token);
cl_result cl_close(const layer_t *layer, cl_sink *sink, uint32_t timeout_ms, uint64_t token);
cl_result cl_group_add(const layer_t *layer, cl_sink *sink, const char *group, const char *channel,
                       uint64_t token);
/* A receiver that takes no message: the first that comes ends it, with an event CL_WAKE. */
cl_received cl_wake(const layer_t *layer, cl_sink *sink, const char *channel, uint64_t token);
/* The next message, if there is one. */
cl_pulled cl_pull(const layer_t *layer, const char *channel);

#endif
