/*
 * What all themes of the conformance list share: layers on the broker under test, calls that are
 * checked against the header's conventions, and probes, which count what happens to a callback.
 */
#ifndef SUPPORT_H
#define SUPPORT_H

#include "../harness.h"

#include "../msgpack.h"

#include "channel_layer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- The broker ------------------------------------------------------------------------------ */

/* CHANNEL_LAYER_TEST_HOST; without it the program ends. */
const char *test_host(void);
bool on_memory(void);

/* For CASE_WHEN: why a case does not apply to the broker under test. */
const char *amqp_only(void);
const char *forks_safely(void);

/* --- Calls ----------------------------------------------------------------------------------- */

/* The last argument of a call inside STATUS and its kin. */
#define ERR fresh_error()
layer_error_t **fresh_error(void);

/* What the error of this thread's last failed call said. */
const char *error_text(void);

/* The status of a call; checks that its error object goes with it, and frees it. */
#define STATUS(call) seen_status(__FILE__, __LINE__, #call, call)
layer_status_t seen_status(const char *file, int line, const char *call, layer_status_t status);

#define CHECK_STATUS(expected, call)                                                               \
    do {                                                                                           \
        if (!is_status(__FILE__, __LINE__, #call, expected, call)) {                               \
            harness_leave();                                                                       \
        }                                                                                          \
    } while (0)
#define CHECK_OK(call) CHECK_STATUS(LAYER_OK, call)

/* In a callback. */
#define EXPECT_STATUS(expected, call) ((void)is_status(__FILE__, __LINE__, #call, expected, call))
#define EXPECT_OK(call) EXPECT_STATUS(LAYER_OK, call)
bool is_status(const char *file, int line, const char *call, layer_status_t expected,
               layer_status_t status);

/* --- Layers ---------------------------------------------------------------------------------- */

/* In place of options. */
#define DEFAULTS NULL

/* A config for the broker under test with options as pairs of strings; belongs to the case. */
#define new_config(...) new_config_of((const char *const[]){__VA_ARGS__, NULL})
layer_config_t *new_config_of(const char *const *options);

/* First among the options: back-pressure lasts for as long as it takes, so that no case has to be
 * faster than `stall_after`. */
#define HOLDING "stall_after", "0"

/* A layer that is ready, with options as pairs of strings; belongs to the case, which may free it
 * with free_layer. Its log is part of the report of a case that fails. */
#define open_layer(...) open_layer_of(true, (const char *const[]){__VA_ARGS__, NULL})

/* The same without waiting until it is ready. */
#define open_cold(...) open_layer_of(false, (const char *const[]){__VA_ARGS__, NULL})
layer_t *open_layer_of(bool wait, const char *const *options);
layer_t *open_with(layer_config_t *config);

/* Makes the end of the case free a layer. */
void own_layer(layer_t *layer);

void free_layer(layer_t *layer);
void free_config(layer_config_t *config);

/* For a layer that a callback frees. That only begins the shutdown, so the end of the case then
 * waits for what is to be destroyed. */
void disown_layer(layer_t *layer);

/* A new channel name; belongs to the case. */
const char *new_channel(layer_t *layer);

uint64_t stat_of(layer_t *layer, uint32_t which);

/* Waits until a statistic is what it should become. */
#define WAIT_STAT(layer, which, expected)                                                          \
    wait_stat_at(__FILE__, __LINE__, layer, which, #which, expected)
void wait_stat_at(const char *file, int line, layer_t *layer, uint32_t which, const char *name,
                  uint64_t expected);

#define CHECK_STAT(layer, which, expected)                                                         \
    do {                                                                                           \
        uint64_t seen_ = stat_of(layer, which);                                                    \
        CHECK(seen_ == (uint64_t)(expected), #which " is %llu, not %llu",                          \
              (unsigned long long)seen_, (unsigned long long)(expected));                          \
    } while (0)

/* --- Messages -------------------------------------------------------------------------------- */

/* {"type": "test", "n": number} */
struct numbered {
    uint8_t data[24];
    size_t length;
};
struct numbered number_message(int64_t number);

/* {"type": "test", "n": number, "pad": a blob of `pad` bytes}; to be freed by mp_free. */
struct mp padded_message(int64_t number, uint32_t pad);

/* The "n" of a message, or INT64_MIN. */
int64_t number_of(const layer_message_t *message);

layer_status_t send_number(layer_t *layer, const char *channel, int64_t number);
layer_status_t group_send_number(layer_t *layer, const char *group, int64_t number);

/* Pulls a message, which must come, and gives its number. */
#define PULL_NUMBER(layer, channel) pull_number_at(__FILE__, __LINE__, layer, channel)
int64_t pull_number_at(const char *file, int line, layer_t *layer, const char *channel);

#define CHECK_PULL(layer, channel, expected)                                                       \
    do {                                                                                           \
        int64_t pulled_ = PULL_NUMBER(layer, channel);                                             \
        CHECK(pulled_ == (int64_t)(expected), "pulled message %lld, not %lld", (long long)pulled_, \
              (long long)(expected));                                                              \
    } while (0)

/* A message that must come; to be freed by the caller. */
layer_message_t *pull(layer_t *layer, const char *channel);

/* Nothing waits for `channel` of `layer`: sends to it, and what comes first must be that. Only
 * where what is not to come would have come before. */
#define CHECK_NOTHING_BEFORE_FENCE(sender, layer, channel)                                         \
    do {                                                                                           \
        CHECK_OK(send_number(sender, channel, FENCE));                                             \
        CHECK_PULL(layer, channel, FENCE);                                                         \
    } while (0)
#define FENCE 999999999

/* --- Probes ---------------------------------------------------------------------------------- */

/*
 * The userdata of a callback. Counts, under harness_lock, what happens to it. At the end of the
 * case, once all layers and configs are freed, each probe must have been destroyed as often as a
 * call took it, never before its last call, and neither called nor destroyed by calls that failed.
 */
struct probe {
    const char *name;
    unsigned given;      /* calls that took it */
    unsigned refused;    /* calls that failed */
    unsigned calls;      /* of the callback */
    unsigned running;    /* calls of the callback now */
    unsigned destroys;   /* calls of destroy */
    unsigned destroying; /* calls of destroy now */
    bool once;           /* given to a receiver, a log or a state: several calls, one destroy */
    bool undestroyed;    /* given without a destroy */
    bool events;         /* given for a log, states or isolation */
    bool several;        /* of several layers, which may call at once */

    /* For receivers. */
    layer_message_t **messages;
    size_t length, room;
    unsigned ends;             /* calls without a message */
    layer_status_t end_status; /* of the last of them */
    int32_t flow;              /* what it returns */
    bool forget;               /* keeps no message */

    /* For outcomes, by status. */
    unsigned outcomes[LAYER_INTERNAL + 1];
    char *error; /* of the last failure */

    /* For states. */
    layer_state_t states[64];
    uint64_t generations[64];

    /* For logs. */
    char *lines[64];

    /* For isolation. */
    uint64_t waiting; /* when it began last */
    uint64_t lost;    /* since then, as the events for channels say */
    uint64_t ended;   /* what was lost in all, as the end says */
    unsigned begins, ends_of_isolation;
    const char *loser; /* a channel; what it has lost is counted apart */
    uint64_t lost_by_loser;

    /* Called inside the callback, without the lock, after it was counted. May be NULL. */
    int32_t (*on_message)(struct probe *probe, layer_status_t status,
                          const layer_message_t *message);
    void (*on_done)(struct probe *probe, layer_status_t status, const layer_error_t *error);
    void (*on_event)(struct probe *probe); /* of a log, a state or isolation */
    void (*on_destroy)(struct probe *probe);
    void *context;

    struct probe *next;
};

struct probe *probe_new(const char *name);

/* The end of a case: checks the ledger, unless the case has failed, and frees the probes. It waits
 * for the destroys of logs and states, whose moment is the subject of events.c alone; and where
 * they may be `late`, for all. */
void probes_settle(bool failed, bool late);

/* The callbacks that take a probe as userdata. */
int32_t probe_receive(void *probe, layer_status_t status, const layer_message_t *message);
void probe_done(void *probe, layer_status_t status, const layer_error_t *error);
void probe_log(void *probe, layer_log_level_t level, const char *id, const char *target,
               const char *message);
void probe_state(void *probe, layer_state_t state, uint64_t generation);
void probe_isolation(void *probe, layer_isolation_t event, const char *channel, uint64_t count);
void probe_destroy(void *probe);

/* Notes that a call was given the probe, and how it ended. */
layer_status_t probe_given(struct probe *probe, layer_status_t status);

/* Calls that take a probe. */
layer_status_t receive(layer_t *layer, const char *channel, struct probe *probe,
                       uint64_t *receiver);
layer_status_t send_async(layer_t *layer, const char *channel, int64_t number, struct probe *probe);
layer_status_t group_send_async(layer_t *layer, const char *group, int64_t number,
                                struct probe *probe);
layer_status_t send_json_async(layer_t *layer, const char *channel, const char *json,
                               struct probe *probe);
layer_status_t group_send_json_async(layer_t *layer, const char *group, const char *json,
                                     struct probe *probe);
layer_status_t group_add_async(layer_t *layer, const char *group, const char *channel,
                               struct probe *probe);
layer_status_t close_async(layer_t *layer, uint32_t timeout_ms, struct probe *probe);
layer_status_t on_log(layer_config_t *config, struct probe *probe);
layer_status_t on_state(layer_config_t *config, struct probe *probe);
layer_status_t on_isolation(layer_config_t *config, struct probe *probe);

/* Whether a log had a record that holds these words. */
bool was_logged(struct probe *log, const char *what);

/* The number of the message that a probe got as the nth, from 0. */
int64_t probe_number(struct probe *probe, size_t nth);

#define WAIT_CALLS(probe, expected)                                                                \
    WAIT_FOR((probe)->calls >= (unsigned)(expected), "%s: %u calls, not %u", (probe)->name,        \
             (probe)->calls, (unsigned)(expected))
#define WAIT_MESSAGES(probe, expected)                                                             \
    WAIT_FOR((probe)->length >= (size_t)(expected), "%s: %zu messages, not %zu", (probe)->name,    \
             (probe)->length, (size_t)(expected))
#define WAIT_DESTROYS(probe, expected)                                                             \
    WAIT_FOR((probe)->destroys >= (unsigned)(expected), "%s: destroyed %u times, not %u",          \
             (probe)->name, (probe)->destroys, (unsigned)(expected))

/* Reads a field of a probe under the lock. */
#define SEEN(probe, field)                                                                         \
    (__extension__({                                                                               \
        harness_lock();                                                                            \
        __typeof__((probe)->field) value_ = (probe)->field;                                        \
        harness_unlock();                                                                          \
        value_;                                                                                    \
    }))

#define CHECK_SEEN(probe, field, expected)                                                         \
    do {                                                                                           \
        long long seen_ = (long long)SEEN(probe, field), wanted_ = (long long)(expected);          \
        CHECK(seen_ == wanted_, "%s: " #field " is %lld, not %lld", (probe)->name, seen_,          \
              wanted_);                                                                            \
    } while (0)

#endif
