/*
 * channel-layer: a channel layer on RabbitMQ.
 *
 * Many server processes send messages to named channels and broadcast to groups, with
 * back-pressure. Link with -lchannel_layer, or load libchannel_layer.so.0 by FFI.
 *
 * CONVENTIONS, which hold for every function below
 *
 * Threads. Every function can be called from any thread, at any time, except that a handle must
 * not be used once its _free has begun, and that a config is for one thread at a time. A thread that
 * is cancelled (pthread_cancel) inside a call ends after it.
 *
 * Handles are opaque. _new gives one, _free takes it. _free(NULL) does nothing. `const` means that
 * the call does not change what a user can see of the object. Outputs are written only on success.
 *
 * Errors. A function that can fail returns a layer_status_t and takes a last parameter
 * `layer_error_t **error`. It may be NULL. On failure it receives a new error object, which the
 * caller frees with layer_error_free. On success it is not touched. There is no global and no
 * thread-local error.
 *
 * Memory. Strings in are NUL-terminated UTF-8. Bytes in are a pointer and a length; NULL goes with
 * length 0. They are borrowed until the call returns. Pointers that a callback gets are borrowed
 * until the callback returns, unless its description says otherwise.
 *
 * Time. `timeout_ms` is in milliseconds; 0 means 'do not wait'. Functions without it use the option
 * `timeout`. No function waits for ever.
 *
 * Callbacks. A callback has `void *userdata` and a `layer_destroy_cb destroy`, which may be NULL.
 * `destroy` is called exactly once, after the last call of the callback, on any thread, and counts
 * as a callback. A CALL THAT FAILS HAS TAKEN NOTHING: neither the callback nor `destroy` runs, and
 * userdata is still the caller's. No lock of the library is held while a callback runs. A callback
 * returns by returning: no exception, no longjmp, no thread exit.
 *
 * Async calls return wrong arguments, names, messages and sizes, LAYER_BUSY, LAYER_CLOSED and
 * LAYER_FORKED by themselves; all that comes later goes to `done`. `done` may run on another thread
 * before the call returns, never on the calling thread inside it.
 *
 * Inside a callback, of any layer, a call that would wait returns LAYER_WOULD_DEADLOCK and changes
 * nothing. layer_close and layer_free only begin the shutdown and return. layer_receive_cancel,
 * layer_group_discard and layer_channel_discard never wait there.
 *
 * Names are ASCII letters, digits, '-', '_' and '.', shorter than 100 bytes; a channel has one '!'
 * in it. layer_receive, layer_receive_next, layer_group_add, layer_group_discard and
 * layer_channel_discard take only channels of their own layer.
 *
 * Delivery is at most once. LAYER_TIMEOUT and LAYER_UNCONFIRMED of a send say that nobody knows
 * whether it arrived. The library never sends a message twice.
 *
 * Fork. A layer belongs to the process that opened it. In a forked child each call on it returns
 * LAYER_FORKED, and layer_free touches nothing; the child opens a layer of its own. The child of a
 * callback that forks must not return from it.
 *
 * Signals. The library changes no disposition and raises no SIGPIPE. Its threads block all signals
 * but SIGPROF and those of a fault, so that the host's handlers run on the host's threads; a process
 * that a callback starts on such a thread inherits that mask.
 *
 * The library must not be unloaded; dlclose keeps it in memory.
 */

#ifndef CHANNEL_LAYER_H
#define CHANNEL_LAYER_H

/* Generated from src/ffi by the build: do not edit. */

#include <stddef.h>
#include <stdint.h>

// The version of this header; `layer_version` gives that of the library that is loaded.
#define LAYER_VERSION "0.1.0"
// The first number of `LAYER_VERSION`.
#define LAYER_VERSION_MAJOR 0
// The second number of `LAYER_VERSION`.
#define LAYER_VERSION_MINOR 1
// The third number of `LAYER_VERSION`.
#define LAYER_VERSION_PATCH 0

#if defined(__GNUC__) || defined(__clang__)
// On functions whose result says whether they did anything: GCC and Clang warn where it is
// not used.
#define LAYER_MUST_USE __attribute__((warn_unused_result))
#else
#define LAYER_MUST_USE
#endif

// The ABI that this header describes. It changes with the SONAME, and only then.
#define LAYER_ABI_VERSION 0

// The room that a channel name needs at most, its NUL included.
#define LAYER_NAME_SIZE 100

// How a call ended. 0 is success; the other numbers never change their meaning.
enum layer_status_t
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // Done. For a send: the broker has confirmed the message.
    LAYER_OK = 0,
    // An argument, option, name or message that is not allowed, or a channel of another layer.
    LAYER_INVALID = 1,
    // The broker refused the message, since a queue that it goes to is full or failing. For a group:
    // at least one process refused it, the others have it.
    LAYER_FULL = 2,
    // No queue for this channel exists now: its owner is gone or reconnecting.
    LAYER_NO_CHANNEL = 3,
    // The encoded message is larger than option `max_message_size`, or than what the broker takes.
    // Certainly not sent.
    LAYER_TOO_LARGE = 4,
    // Certainly not sent: no connection took the message by the deadline.
    LAYER_DISCONNECTED = 5,
    // Certainly not sent: `max_in_flight` sends are in flight, or the broker blocks publishers.
    LAYER_BUSY = 6,
    // A send was handed over and not confirmed in time, so nobody knows whether it arrived; or
    // a wait ran out, with nothing lost.
    LAYER_TIMEOUT = 7,
    // The message was handed over and the connection was lost before the confirm: nobody knows.
    LAYER_UNCONFIRMED = 8,
    // Certainly not sent or done: each host refused its last attempt to connect for credentials,
    // vhost, TLS, rights or limits, and is retried; or the user may not send this message.
    LAYER_REFUSED = 9,
    // The channel of the receiver was discarded.
    LAYER_CANCELLED = 10,
    // The layer is closed.
    LAYER_CLOSED = 11,
    // The call would have waited inside a callback. Nothing was changed.
    LAYER_WOULD_DEADLOCK = 12,
    // The layer was opened by the parent of this process, before a fork.
    LAYER_FORKED = 13,
    // A bug in this library. The message says where.
    LAYER_INTERNAL = 14,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum layer_status_t layer_status_t;
#else
typedef int32_t layer_status_t;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// How grave a log record is.
enum layer_log_level_t
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // Something does not work and needs a person.
    LAYER_LOG_ERROR = 1,
    // Something was lost or is about to be.
    LAYER_LOG_WARN = 2,
    // Something changed, as it should.
    LAYER_LOG_INFO = 3,
    // What a maintainer wants to see.
    LAYER_LOG_DEBUG = 4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum layer_log_level_t layer_log_level_t;
#else
typedef int32_t layer_log_level_t;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// The state of a layer.
enum layer_state_t
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // Not connected, or not wholly: attempts go on for ever.
    LAYER_STATE_CONNECTING = 0,
    // Both connections stand and every group is bound.
    LAYER_STATE_READY = 1,
    // Each host refused its last attempt for credentials, vhost or TLS. Attempts go on.
    LAYER_STATE_REFUSED = 2,
    // The layer is closed or closing.
    LAYER_STATE_CLOSED = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum layer_state_t layer_state_t;
#else
typedef int32_t layer_state_t;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// What isolation does. Messages that channels have not taken keep the broker from sending any to the
// others; once that has lasted for option `stall_after`, channels are isolated: none holds deliveries
// back, and each keeps at most `channel_capacity` messages and loses its newest beyond, until what
// waits is at most half of `local_capacity` and `prefetch_count`.
enum layer_isolation_t
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // Channels are isolated from now on.
    LAYER_ISOLATION_BEGAN = 1,
    // A channel has lost its newest messages.
    LAYER_ISOLATION_LOST = 2,
    // Channels are not isolated any more.
    LAYER_ISOLATION_ENDED = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum layer_isolation_t layer_isolation_t;
#else
typedef int32_t layer_isolation_t;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// What a `layer_receive_cb` returns.
enum layer_flow_t
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // The message was taken; go on.
    LAYER_CONTINUE = 0,
    // The message was taken; the receiver ends.
    LAYER_STOP = 1,
    // The message was not taken: it stays first in its channel. The receiver ends.
    LAYER_DECLINE = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum layer_flow_t layer_flow_t;
#else
typedef int32_t layer_flow_t;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// What `layer_stat` can be asked. Counters only grow; gauges say how it is now. Later versions add
// numbers and never change one.
enum layer_stat_t
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // Counts sends that the broker confirmed.
    LAYER_STAT_SENDS_CONFIRMED = 1,
    // Counts sends that the broker refused because a queue was full.
    LAYER_STAT_SENDS_FULL = 2,
    // Counts sends to a channel whose queue does not exist.
    LAYER_STAT_SENDS_NO_CHANNEL = 3,
    // Counts sends of which nobody knows whether they arrived: those that timed out and those that
    // stayed unconfirmed.
    LAYER_STAT_SENDS_UNKNOWN = 4,
    // Counts sends that were accepted and certainly not handed over.
    LAYER_STAT_SENDS_UNSENT = 5,
    // Counts messages that arrived from the broker.
    LAYER_STAT_DELIVERIES = 6,
    // Counts messages that were given to a receiver; one to a group counts once per member.
    LAYER_STAT_RECEIVED = 7,
    // Counts messages dropped because nobody received them within `local_expiry`.
    LAYER_STAT_DROPPED_EXPIRED = 8,
    // Counts messages dropped because their channel held `channel_capacity` of them, while channels
    // were isolated.
    LAYER_STAT_DROPPED_CHANNEL_FULL = 9,
    // Counts messages dropped because the broker flagged them as perhaps delivered before.
    LAYER_STAT_DROPPED_REDELIVERED = 10,
    // Counts messages dropped because they are not one map with one recipient.
    LAYER_STAT_DROPPED_MALFORMED = 11,
    // Counts messages dropped because their group had no local member any more.
    LAYER_STAT_DROPPED_NO_MEMBER = 12,
    // Counts messages dropped because they name a channel of another queue.
    LAYER_STAT_DROPPED_FOREIGN = 13,
    // Counts messages dropped because their channel was discarded or the layer closed.
    LAYER_STAT_DROPPED_DISCARDED = 14,
    // Counts log records and events that were dropped because too many were waiting.
    LAYER_STAT_EVENTS_DROPPED = 15,
    // The number of consuming connections so far.
    LAYER_STAT_GENERATION = 16,
    // The number of messages that wait in memory for a receiver.
    LAYER_STAT_BACKLOG = 17,
    // The number of sends whose outcome is not delivered yet.
    LAYER_STAT_IN_FLIGHT = 18,
    // The number of channels that hold a message or a receiver.
    LAYER_STAT_CHANNELS = 19,
    // The number of receivers.
    LAYER_STAT_RECEIVERS = 20,
    // The number of groups with local members.
    LAYER_STAT_GROUPS = 21,
    // The number of memberships.
    LAYER_STAT_MEMBERSHIPS = 22,
    // The number of groups that the broker routes here.
    LAYER_STAT_GROUPS_BOUND = 23,
    // 1 while the broker blocks publishers, else 0.
    LAYER_STAT_PUBLISHERS_BLOCKED = 24,
    // The number of deliveries that are held, so that the broker sends no more.
    LAYER_STAT_DELIVERIES_HELD = 25,
    // Counts sends that were accepted; each has one outcome, or is still under way.
    LAYER_STAT_SENDS_ACCEPTED = 26,
    // Counts sends that were handed over and not confirmed within option `timeout`.
    LAYER_STAT_SENDS_TIMED_OUT = 27,
    // Counts sends that were handed over before the connection was lost or the layer closed.
    LAYER_STAT_SENDS_UNCONFIRMED = 28,
    // Counts consuming connections after the first.
    LAYER_STAT_RECONNECTS = 29,
    // Counts callbacks that have run: of receivers, of async calls, of log and state. Told when a
    // thread has run what was due, and on the way after at most 64 of them.
    LAYER_STAT_CALLBACKS = 30,
    // Counts the nanoseconds that threads have spent on callbacks, together with what the library
    // does between two of them. Told when the callbacks are.
    LAYER_STAT_CALLBACK_NANOSECONDS = 31,
    // 1 while both connections stand and every group is bound, else 0.
    LAYER_STAT_READY = 32,
    // 1 while channels are isolated: none holds back deliveries to the others, and each is bounded
    // by `channel_capacity`; else 0.
    LAYER_STAT_ISOLATING = 33,
    // Counts how often isolation has begun.
    LAYER_STAT_ISOLATIONS = 34,
    // Counts messages dropped because all channels held `total_capacity` and theirs was the fullest,
    // while channels were isolated.
    LAYER_STAT_DROPPED_TOTAL_FULL = 35,
    // Counts memberships that ended because their channel was not used for `group_expiry`.
    LAYER_STAT_MEMBERSHIPS_EXPIRED = 36,
    // Counts sends that the broker refused for what they are: too large for it, or not allowed to
    // the user.
    LAYER_STAT_SENDS_REFUSED = 37,
    // Counts how often the queue got another name, since an earlier one stayed taken.
    LAYER_STAT_QUEUE_RENAMES = 38,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum layer_stat_t layer_stat_t;
#else
typedef uint32_t layer_stat_t;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// Options for a layer. Not for use from two threads at once.
typedef struct layer_config_t layer_config_t;

// Why a call failed. Made by the library, freed by `layer_error_free`.
typedef struct layer_error_t layer_error_t;

// A message: immutable, usable from any thread, and it outlives its layer.
typedef struct layer_message_t layer_message_t;

// An open layer: one queue on the broker, with any number of channels. Usable from any thread.
typedef struct layer_t layer_t;

// Takes a log record. `id` says what it is about, in words that never change their meaning, as
// "connection_lost"; docs/log-records.md lists them, with what to do about each. `target` is the
// part of the library that says it, `message` what happened, for people. All three are borrowed
// until the callback returns.
typedef void (*layer_log_cb)(void *userdata,
                             layer_log_level_t level,
                             const char *id,
                             const char *target,
                             const char *message);

// Releases `userdata`. Called exactly once, after the last call of the callback that it was given
// with, on any thread. It counts as a callback.
typedef void (*layer_destroy_cb)(void *userdata);

// Takes a change of state. `generation` counts the consuming connections so far: where it grew,
// messages may have been missed in between.
typedef void (*layer_state_cb)(void *userdata, layer_state_t state, uint64_t generation);

// Takes what isolation does (see `layer_isolation_t`).
//
// `LAYER_ISOLATION_BEGAN`: `channel` is NULL, `count` the number of messages that wait in memory.
// `LAYER_ISOLATION_LOST`: `channel` has lost `count` messages since that was last told, once a second
// and when isolation ends; NULL for several channels that are not told apart. The counts of all such calls are what
// was lost. `LAYER_ISOLATION_ENDED`: `channel` is NULL, `count` the number of messages that were lost
// in all since it began. `channel` is borrowed until the callback returns.
typedef void (*layer_isolation_cb)(void *userdata,
                                   layer_isolation_t event,
                                   const char *channel,
                                   uint64_t count);

// Takes the outcome of an async call. Called exactly once.
//
// `error`: NULL with `LAYER_OK`, else borrowed until the callback returns.
typedef void (*layer_done_cb)(void *userdata, layer_status_t status, const layer_error_t *error);

// Takes a message, or the news that the receiver has ended.
//
// `status` is `LAYER_OK` with a message; or `LAYER_CANCELLED` (the channel was discarded) or
// `LAYER_CLOSED` (the layer was closed) with a NULL message, and then it is the last call.
// `message` is borrowed until the callback returns; `layer_message_ref` keeps it.
// Returns `LAYER_CONTINUE`, `LAYER_STOP` or `LAYER_DECLINE` (see `layer_flow_t`); any other
// number is taken as `LAYER_STOP`. The result is ignored where there is no message.
typedef int32_t (*layer_receive_cb)(void *userdata,
                                    layer_status_t status,
                                    const layer_message_t *message);

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// Makes a set of options, all at their defaults.
//
// The result is to be freed by `layer_config_free`; NULL only if memory is exhausted. Never
// blocks; any thread; allowed from a callback.
LAYER_MUST_USE layer_config_t *layer_config_new(void);

// Sets an option; README.md lists them. Durations are decimal seconds ("0.25"), sizes bytes.
//
// `config`: changed. `name`, `value`: copied. `error`: see the conventions. Never blocks; one thread
// at a time; allowed from a callback. Returns `LAYER_OK`; `LAYER_INVALID` (NULL, an unknown name, a
// bad value: the error names the option, the value and what is allowed).
LAYER_MUST_USE
layer_status_t layer_config_set(layer_config_t *config,
                                const char *name,
                                const char *value,
                                layer_error_t **error);

// Checks a config without opening a layer: fails where `layer_new` would refuse this config, with
// the same error. It opens no connection, looks up no name and starts no thread.
//
// `layer_config_set` has refused unknown names and bad values already; this also checks the options
// against each other and, where a URL of option `host` begins with `amqps://`, reads what
// `layer_new` reads: `tls_ca_pem`, the files of the options `tls_...`, or the system's certificate
// authorities. Files are read again by `layer_new`, and may have changed by then.
//
// `config`: borrowed and not changed; NULL for all defaults. `error`: see the conventions. Never
// blocks for the network; one thread at a time; allowed from a callback. Returns `LAYER_OK`;
// `LAYER_INVALID` (options that contradict each other, a file or PEM text that cannot be used).
LAYER_MUST_USE
layer_status_t layer_config_check(const layer_config_t *config,
                                  layer_error_t **error);

// Sets who gets the log records of layers that are made from this config; without it there is no
// log. A second call replaces the first one's callback, for layers made later.
//
// Records of one layer come one at a time, in order; two layers may call at once. At most 1024
// records, state changes and other events of a layer wait; `LAYER_STAT_EVENTS_DROPPED` counts what was too
// much. With `dispatch=poll` they come from `layer_poll`. `destroy` runs once the config and all
// its layers are gone.
//
// `config`: changed. `callback`: not NULL. `userdata`, `destroy`: see the conventions. Never
// blocks; one thread at a time; allowed from a callback. Returns `LAYER_OK`; `LAYER_INVALID`
// (NULL).
LAYER_MUST_USE
layer_status_t layer_config_on_log(layer_config_t *config,
                                   layer_log_cb callback,
                                   void *userdata,
                                   layer_destroy_cb destroy,
                                   layer_error_t **error);

// Sets who gets the state changes of layers that are made from this config. All that is said at
// `layer_config_on_log` holds here.
//
// `config`: changed. `callback`: not NULL. `userdata`, `destroy`: see the conventions. Never
// blocks; one thread at a time; allowed from a callback. Returns `LAYER_OK`; `LAYER_INVALID`
// (NULL).
LAYER_MUST_USE
layer_status_t layer_config_on_state(layer_config_t *config,
                                     layer_state_cb callback,
                                     void *userdata,
                                     layer_destroy_cb destroy,
                                     layer_error_t **error);

// Sets who is told when channels of layers that are made from this config are isolated, what they
// lose by it, and when that ends (see `layer_isolation_t`). All that is said at `layer_config_on_log`
// holds here.
//
// `config`: changed. `callback`: not NULL. `userdata`, `destroy`: see the conventions. Never
// blocks; one thread at a time; allowed from a callback. Returns `LAYER_OK`; `LAYER_INVALID`
// (NULL).
LAYER_MUST_USE
layer_status_t layer_config_on_isolation(layer_config_t *config,
                                         layer_isolation_cb callback,
                                         void *userdata,
                                         layer_destroy_cb destroy,
                                         layer_error_t **error);

// Frees a config. Layers that were made from it are not touched.
//
// `config`: taken; NULL does nothing. Never blocks; any thread; allowed from a callback.
void layer_config_free(layer_config_t *config);

// Adds a channel to a group. The membership is recorded at once; the call returns when the broker
// routes the group here, so that a message that is sent afterwards arrives.
//
// It waits at most option `timeout`. On `LAYER_TIMEOUT`, `LAYER_DISCONNECTED` and `LAYER_REFUSED`
// the membership stays and is bound on reconnection. Adding again is fine and renews the
// membership. It expires where for `group_expiry` the channel was not added again and not in use: no
// receiver and no thread waited for its messages, and none was taken.
//
// `group`, `channel`: borrowed; a channel of this layer. `error`: see the conventions. Blocks; any
// thread; from a callback only where the group is routed here already. Returns `LAYER_OK`;
// `LAYER_TIMEOUT` (connected, and the broker has not answered); `LAYER_DISCONNECTED`;
// `LAYER_REFUSED`; `LAYER_INVALID`; `LAYER_CLOSED`; `LAYER_WOULD_DEADLOCK` (nothing was recorded);
// `LAYER_FORKED`.
LAYER_MUST_USE
layer_status_t layer_group_add(const layer_t *layer,
                               const char *group,
                               const char *channel,
                               layer_error_t **error);

// `layer_group_add` without waiting: the outcome goes to `done`.
//
// Calls under way are not counted in `max_in_flight`.
//
// `done`: not NULL; called once, perhaps on another thread before this call returns, never on this
// thread inside it. `userdata`, `destroy`: see the conventions. Never blocks; any thread; allowed
// from a callback. Returns `LAYER_OK` (recorded); `LAYER_INVALID`; `LAYER_CLOSED`;
// `LAYER_FORKED`.
LAYER_MUST_USE
layer_status_t layer_group_add_async(const layer_t *layer,
                                     const char *group,
                                     const char *channel,
                                     layer_done_cb done,
                                     void *userdata,
                                     layer_destroy_cb destroy,
                                     layer_error_t **error);

// Removes a channel from a group, here at once; the broker follows. Messages that are queued for
// the channel already stay. Discarding one that is no member is fine.
//
// `group`, `channel`: borrowed; a channel of this layer. `error`: see the conventions. Never
// blocks; any thread; allowed from a callback. Returns `LAYER_OK`; `LAYER_INVALID`;
// `LAYER_CLOSED`; `LAYER_FORKED`.
layer_status_t layer_group_discard(const layer_t *layer,
                                   const char *group,
                                   const char *channel,
                                   layer_error_t **error);

// Opens a layer. It connects in the background and for ever tries again: a broker that is down
// does not fail this call.
//
// `config`: borrowed and copied; NULL for all defaults. `layer`: receives the handle, to be freed
// by `layer_free`. `error`: see the conventions. Never blocks for the network; with `amqps://` it
// reads the files of the options `tls_...`, or where the system keeps its certificate authorities;
// any thread; allowed from a callback. Returns `LAYER_OK`; `LAYER_INVALID` (NULL `layer`, options
// that contradict each other, a file that cannot be used); `LAYER_INTERNAL` (the system gives no
// thread or descriptor).
LAYER_MUST_USE
layer_status_t layer_new(const layer_config_t *config,
                         layer_t **layer,
                         layer_error_t **error);

// Waits until the layer is ready: both connections stand and every group is bound.
//
// `timeout_ms`: 0 only looks. Blocks up to `timeout_ms`; any thread; from a callback only with 0.
// Returns `LAYER_OK`; `LAYER_TIMEOUT`; `LAYER_REFUSED` (at once); `LAYER_CLOSED`;
// `LAYER_WOULD_DEADLOCK`; `LAYER_INVALID` (NULL); `LAYER_FORKED`.
LAYER_MUST_USE
layer_status_t layer_wait_ready(const layer_t *layer,
                                uint32_t timeout_ms,
                                layer_error_t **error);

// The state of the layer now.
//
// `state`: receives it. Never blocks; any thread; allowed from a callback. Returns `LAYER_OK`, for
// a closed layer too; `LAYER_INVALID` (NULL); `LAYER_FORKED`.
LAYER_MUST_USE
layer_status_t layer_state(const layer_t *layer,
                           layer_state_t *state,
                           layer_error_t **error);

// A counter or gauge of the layer.
//
// `which`: a `layer_stat_t`. `value`: receives it. Never blocks; any thread; allowed from a
// callback. Returns `LAYER_OK`, for a closed layer too; `LAYER_INVALID` (NULL, a number that this
// version does not know); `LAYER_FORKED`.
LAYER_MUST_USE
layer_status_t layer_stat(const layer_t *layer,
                          uint32_t which,
                          uint64_t *value,
                          layer_error_t **error);

// All counters and gauges as text that Prometheus reads: its text format 0.0.4, to be served as
// `text/plain; version=0.0.4`. docs/statistics.md lists the metrics. The numbers are read one after
// the other, while the layer goes on.
//
// Two calls: with NULL and size 0 it only tells in `length` how long the text can get with these
// labels, whatever the numbers will be; with room for that and a NUL it writes the text. The room
// can be kept for all later calls with these labels.
//
// `labels`: borrowed; NULL or "" for none; what each series gets, as `site="a",zone="b"`, with \\,
// \" and \n for a backslash, a quote and a line's end, and no other control character; each name
// once, and none that begins with `__`; not `outcome` or `reason`, which are ours.
// `text`: receives the NUL-terminated text. `size`: the room at `text` in bytes. `length`: receives
// the length without the NUL; may be NULL where `text` is not. `error`: see the conventions. Never
// blocks; any thread; allowed from a callback. Returns `LAYER_OK`, for a closed layer too;
// `LAYER_INVALID` (NULL, bad labels, too little room: the error names the size that is always
// enough, and nothing was written); `LAYER_FORKED`.
LAYER_MUST_USE
layer_status_t layer_stats_prometheus(const layer_t *layer,
                                      const char *labels,
                                      char *text,
                                      size_t size,
                                      size_t *length,
                                      layer_error_t **error);

// Makes up a new channel name, `<queue name>!<prefix><12 random letters>`. Nothing is registered:
// a channel begins with its first message or receiver.
//
// `prefix`: borrowed; NULL for none; ASCII letters, digits, '-', '_' and '.'. `name`: receives the
// NUL-terminated name. `size`: the room at `name` in bytes; `LAYER_NAME_SIZE` is always enough.
// Never blocks; any thread; allowed from a callback. Returns `LAYER_OK`; `LAYER_INVALID` (NULL, a
// bad or too long prefix, too little room); `LAYER_CLOSED`; `LAYER_FORKED`.
LAYER_MUST_USE
layer_status_t layer_new_channel(const layer_t *layer,
                                 const char *prefix,
                                 char *name,
                                 size_t size,
                                 layer_error_t **error);

// Closes the layer: refuses new calls, waits for confirms, closes the connections, ends the
// receivers (`LAYER_CLOSED`), joins its threads. Undelivered messages are dropped. Whatever the
// status, the layer is closed; calls that other threads are inside of return `LAYER_CLOSED`, or
// `LAYER_UNCONFIRMED` where a message was handed over and its confirm did not come in time.
//
// With `dispatch=poll` it runs the callbacks that are due itself. From a callback it only begins
// the shutdown. Again on a closed layer it only waits for callbacks that are still running.
//
// `timeout_ms`: the bound of the whole call, even against a dead or blocking broker; only a
// callback of yours that does not return can make the rest outlive it. Blocks; any thread;
// allowed from a callback. Returns `LAYER_OK`; `LAYER_TIMEOUT` (closed all the same; what is left
// ends later or in `layer_free`); `LAYER_INVALID` (NULL); `LAYER_FORKED`.
layer_status_t layer_close(const layer_t *layer, uint32_t timeout_ms, layer_error_t **error);

// `layer_close` without waiting: begins the shutdown, and how it ended goes to `done`.
//
// When it has returned, new calls are refused; all else that `layer_close` says happens within
// `timeout_ms`. Then `done` is called with what `layer_close` would return: `LAYER_OK` after all
// other callbacks of the layer have ended; `LAYER_TIMEOUT` where `timeout_ms` has passed, or where
// sends were left without a confirm.
//
// With `dispatch=thread`, `done` runs on a thread of its own, so that a callback that does not
// return cannot hold it up. With `dispatch=poll` it runs in `layer_poll`, which returns
// `LAYER_CLOSED` only after it: poll on until then. Where nobody polls, `layer_close` and
// `layer_free` run it.
//
// Again, beside `layer_close` or after it, is fine: each call has a time and a `done` of its own,
// and the shutdown has the time of the call that began it. With `dispatch=poll` and a layer that
// is closed already, poll once more. `layer_close` and `layer_free` wait for each `done`, as for
// other callbacks, within their own time; `done` may call `layer_free`, as its last use of the
// layer. In a child that forks meanwhile it is not called.
//
// `timeout_ms`: as in `layer_close`. `done`: not NULL; called once, perhaps on another thread
// before this call returns, never on this thread inside it. `userdata`, `destroy`, `error`: see
// the conventions. Never blocks; any thread; allowed from a callback. Returns `LAYER_OK` (closing);
// `LAYER_INVALID` (NULL); `LAYER_INTERNAL` (the system gives no thread; the layer is as it was);
// `LAYER_FORKED`.
LAYER_MUST_USE
layer_status_t layer_close_async(const layer_t *layer,
                                 uint32_t timeout_ms,
                                 layer_done_cb done,
                                 void *userdata,
                                 layer_destroy_cb destroy,
                                 layer_error_t **error);

// Frees a layer, and closes it first if need be, with option `timeout` as the bound. What is left
// ends: `done` with `LAYER_CLOSED` or `LAYER_UNCONFIRMED`, `destroy`. Messages of the layer live
// on.
//
// It must be the last call on this handle that begins; others may still be inside theirs. From a
// callback it only begins the shutdown. In a forked child it touches nothing.
//
// `layer`: taken; NULL does nothing. Blocks; any thread; allowed from a callback.
void layer_free(layer_t *layer);

// With `dispatch=poll`: a descriptor that is readable while callbacks are due, for epoll, libuv,
// asyncio and the like. When it is, call `layer_poll`. Neither read, write nor close it. After a
// callback that was due has been cancelled it may be readable once more, for a `layer_poll` that
// runs none.
//
// Watch it level-triggered, which is the default of poll and epoll. A loop that is edge-triggered
// (`EPOLLET`) calls `layer_poll` until `ran` is 0, since what is left makes no new edge.
//
// Boost.Asio and others close a descriptor that they were given: give them one from `layer_fd_dup`.
// If this one is closed all the same, the layer goes on, does not touch the file that has its
// number by then, and logs `descriptor_lost`.
//
// `layer`: borrowed. The descriptor belongs to the layer and is closed by `layer_free`. Never
// blocks; any thread; allowed from a callback. Returns -1 for NULL, with `dispatch=thread`, and
// after a fork.
LAYER_MUST_USE int layer_fd(const layer_t *layer);

// With `dispatch=poll`: a duplicate of the descriptor of `layer_fd`, which the caller owns. It is
// readable while callbacks are due, for event loops that close what they were given, and it may be
// closed before or after `layer_free`. After that it never becomes readable. Each call gives another
// one, which is closed on exec.
//
// `layer`: borrowed. `fd`: receives the descriptor, to be closed by the caller. `error`: see the
// conventions. Never blocks; any thread; allowed from a callback. Returns `LAYER_OK`, for a closed
// layer too; `LAYER_INVALID` (NULL, or `dispatch=thread`); `LAYER_FORKED`; `LAYER_INTERNAL` (the
// system gives no descriptor, as with `EMFILE`). `fd` is written only with `LAYER_OK`.
LAYER_MUST_USE
layer_status_t layer_fd_dup(const layer_t *layer,
                            int *fd,
                            layer_error_t **error);

// With `dispatch=poll`: runs callbacks that are due, of all kinds, on this thread.
//
// Several threads may poll at once; the order of each channel is kept.
//
// `max`: the most callbacks to run; with 0, each channel that is due when the call begins has one
// turn. `ran` is 0 only if nothing is due any more. A `destroy` that follows a callback is not counted. `timeout_ms`: how long to wait for the first
// callback; 0 does not wait. `ran`: receives their number; may be NULL. `error`: see the
// conventions. Blocks up to `timeout_ms`, and as long as your callbacks do; any thread; not from a
// callback. Returns `LAYER_OK` (`ran` may be 0); `LAYER_CLOSED` (closed, and nothing is due any
// more; where closing ran out of time, a callback may still be running on another thread);
// `LAYER_INVALID` (NULL, or `dispatch=thread`); `LAYER_WOULD_DEADLOCK`; `LAYER_FORKED`.
LAYER_MUST_USE
layer_status_t layer_poll(const layer_t *layer,
                          size_t max,
                          uint32_t timeout_ms,
                          size_t *ran,
                          layer_error_t **error);

// Receives the messages of a channel by callback: one call for each message, in order.
//
// Messages that came before are delivered too. Several receivers of one channel share its
// messages: each goes to one of them. Calls for one channel never overlap; those for different
// channels may, with `dispatch_threads` above 1 or several threads in `layer_poll`.
// How a receiver ends: by its user (`LAYER_STOP`, `LAYER_DECLINE`, `layer_receive_cancel`), then
// only `destroy` follows; or by the layer, then there is one last call with `LAYER_CANCELLED` (the
// channel was discarded) or `LAYER_CLOSED` and no message, then `destroy`.
//
// `channel`: borrowed; a channel of this layer. `callback`: not NULL. `receiver`: receives the
// receiver's number, never 0 and never used again, before the first call; may be NULL. `userdata`,
// `destroy`, `error`: see the conventions. Never blocks; any thread; allowed from a callback.
// Returns `LAYER_OK`; `LAYER_INVALID`; `LAYER_CLOSED`; `LAYER_FORKED`.
LAYER_MUST_USE
layer_status_t layer_receive(const layer_t *layer,
                             const char *channel,
                             layer_receive_cb callback,
                             void *userdata,
                             layer_destroy_cb destroy,
                             uint64_t *receiver,
                             layer_error_t **error);

// Ends a receiver. No call of its callback begins once this has returned, and no message is lost:
// what it did not take stays in the channel.
//
// It waits for a call that is running, at most option `timeout`, and then runs `destroy` itself.
// From a callback it never waits: a call that is running goes on, and `destroy` follows it. Of two
// threads that cancel one receiver at once, one may return before the other has run `destroy`.
//
// `receiver`: a number from `layer_receive`; an unknown or ended one is `LAYER_OK`. `error`: see
// the conventions. Blocks; any thread; allowed from a callback. Returns `LAYER_OK`;
// `LAYER_TIMEOUT` (no call will begin any more, `destroy` follows the one that is running);
// `LAYER_INVALID` (NULL); `LAYER_FORKED`.
layer_status_t layer_receive_cancel(const layer_t *layer, uint64_t receiver, layer_error_t **error);

// Waits for the next message of a channel. While a receiver of the channel, on another thread, is
// about to decline a message, that one is neither here nor there, and this may give the one after.
//
// `channel`: borrowed; a channel of this layer. `timeout_ms`: 0 only looks. `message`: receives a
// message to be freed by `layer_message_free`. `error`: see the conventions. Blocks up to
// `timeout_ms`; any thread; from a callback only with 0. Returns `LAYER_OK`; `LAYER_TIMEOUT`
// (nothing is lost); `LAYER_CANCELLED` (the channel was discarded meanwhile); `LAYER_CLOSED`;
// `LAYER_INVALID`; `LAYER_WOULD_DEADLOCK`; `LAYER_FORKED`.
LAYER_MUST_USE
layer_status_t layer_receive_next(const layer_t *layer,
                                  const char *channel,
                                  uint32_t timeout_ms,
                                  layer_message_t **message,
                                  layer_error_t **error);

// Gives a channel up, for instance because its client went away: drops its memberships, its
// queued messages and its receivers, which get a last call with `LAYER_CANCELLED`. The name can be
// used again.
//
// `channel`: borrowed; a channel of this layer. `error`: see the conventions. Never blocks; any
// thread; allowed from a callback. Returns `LAYER_OK`, for a channel that holds nothing too;
// `LAYER_INVALID`; `LAYER_CLOSED`; `LAYER_FORKED`.
layer_status_t layer_channel_discard(const layer_t *layer,
                                     const char *channel,
                                     layer_error_t **error);

// Sends a message to a channel and waits for the broker's confirm, at most option `timeout`.
//
// While the layer is not ready, it waits within that time. With `max_in_flight` sends in flight it
// waits for a place.
//
// `channel`: borrowed. `message`, `length`: borrowed; one MessagePack map as the Channels
// specification allows: string keys, nil, bool, integers, floats, strings, bytes, arrays, maps, at
// most 128 deep; no key `__asgi_channel__` or `__asgi_group__`. Integers are those of MessagePack,
// -2^63 to 2^64-1. `error`: see the conventions. Blocks; any thread; not from a callback.
// Returns `LAYER_OK`; `LAYER_FULL`; `LAYER_NO_CHANNEL`; `LAYER_INVALID`; `LAYER_TOO_LARGE`;
// `LAYER_DISCONNECTED`; `LAYER_BUSY`; `LAYER_TIMEOUT`; `LAYER_UNCONFIRMED`; `LAYER_REFUSED`;
// `LAYER_CLOSED`; `LAYER_WOULD_DEADLOCK`; `LAYER_FORKED`.
LAYER_MUST_USE
layer_status_t layer_send(const layer_t *layer,
                          const char *channel,
                          const uint8_t *message,
                          size_t length,
                          layer_error_t **error);

// `layer_send` with the message as JSON text: one object. A string of U+FFFF followed by base64
// becomes bytes. Integers outside -2^63 to 2^64-1 and duplicate keys are `LAYER_INVALID`.
//
// `json`: borrowed, NUL-terminated UTF-8. All else as `layer_send`.
LAYER_MUST_USE
layer_status_t layer_send_json(const layer_t *layer,
                               const char *channel,
                               const char *json,
                               layer_error_t **error);

// Sends a message to every member of a group, in all processes, and waits for the broker's
// confirm. A group without members is `LAYER_OK`. `LAYER_FULL` means that at least one member
// process refused the message; the others have it.
//
// `group`: borrowed. All else as `layer_send`; `LAYER_NO_CHANNEL` does not occur.
LAYER_MUST_USE
layer_status_t layer_group_send(const layer_t *layer,
                                const char *group,
                                const uint8_t *message,
                                size_t length,
                                layer_error_t **error);

// `layer_group_send` with the message as JSON text, as in `layer_send_json`.
LAYER_MUST_USE
layer_status_t layer_group_send_json(const layer_t *layer,
                                     const char *group,
                                     const char *json,
                                     layer_error_t **error);

// `layer_send` without waiting: the outcome goes to `done`.
//
// `channel`, `message`: borrowed until the call returns. `done`: not NULL; called once with each
// status of `layer_send` that takes time; perhaps on another thread before this call returns,
// never on this thread inside it. The place in `max_in_flight` is held until `done` was called.
// `userdata`, `destroy`: see the conventions. Never blocks; any thread; allowed from a callback.
// Returns `LAYER_OK` (accepted); `LAYER_INVALID`; `LAYER_TOO_LARGE`; `LAYER_BUSY` (no place, or
// the broker blocks publishers); `LAYER_REFUSED`; `LAYER_CLOSED`; `LAYER_FORKED`.
LAYER_MUST_USE
layer_status_t layer_send_async(const layer_t *layer,
                                const char *channel,
                                const uint8_t *message,
                                size_t length,
                                layer_done_cb done,
                                void *userdata,
                                layer_destroy_cb destroy,
                                layer_error_t **error);

// `layer_group_send` without waiting; all else as `layer_send_async`.
LAYER_MUST_USE
layer_status_t layer_group_send_async(const layer_t *layer,
                                      const char *group,
                                      const uint8_t *message,
                                      size_t length,
                                      layer_done_cb done,
                                      void *userdata,
                                      layer_destroy_cb destroy,
                                      layer_error_t **error);

// `layer_send_json` without waiting: the outcome goes to `done`.
//
// `channel`, `json`: borrowed until the call returns. The rules of `layer_send_json` hold for the
// text; one that is not allowed is `LAYER_INVALID` here, and never an outcome.
//
// All else as `layer_send_async`.
LAYER_MUST_USE
layer_status_t layer_send_json_async(const layer_t *layer,
                                     const char *channel,
                                     const char *json,
                                     layer_done_cb done,
                                     void *userdata,
                                     layer_destroy_cb destroy,
                                     layer_error_t **error);

// `layer_group_send_json` without waiting; all else as `layer_send_json_async`.
LAYER_MUST_USE
layer_status_t layer_group_send_json_async(const layer_t *layer,
                                           const char *group,
                                           const char *json,
                                           layer_done_cb done,
                                           void *userdata,
                                           layer_destroy_cb destroy,
                                           layer_error_t **error);

// The message as one MessagePack map, without the recipient key that travels with it.
//
// `message`: borrowed; NULL gives NULL with length 0. `length`: receives the number of bytes;
// may be NULL. The result belongs to the message and lives as long. Never blocks; any thread;
// allowed from a callback.
const uint8_t *layer_message_data(const layer_message_t *message, size_t *length);

// The message as JSON text.
//
// Bytes become a string of U+FFFF followed by base64, as the Channels specification proposes. A
// message of a foreign sender can hold what JSON cannot: then this view alone fails.
//
// `message`: borrowed. `json`: receives NUL-terminated UTF-8 that belongs to the message and lives
// as long; it is made once. `error`: see the conventions. Never blocks; any thread; allowed from a
// callback. Returns `LAYER_OK`; `LAYER_INVALID` (NULL, or a value that JSON cannot hold: the error
// names it).
LAYER_MUST_USE
layer_status_t layer_message_json(const layer_message_t *message,
                                  const char **json,
                                  layer_error_t **error);

// The full name of the channel that the message was delivered on.
//
// `message`: borrowed; NULL gives NULL. The result belongs to the message and lives as long. Never
// blocks; any thread; allowed from a callback.
const char *layer_message_channel(const layer_message_t *message);

// The group that the message was sent to, or NULL if it was sent to the channel itself.
//
// `message`: borrowed; NULL gives NULL. The result belongs to the message and lives as long. Never
// blocks; any thread; allowed from a callback.
const char *layer_message_group(const layer_message_t *message);

// The value of the key "type", by which Channels picks a handler; NULL if there is none, if it is
// not a string, or if it holds a NUL.
//
// `message`: borrowed; NULL gives NULL. The result belongs to the message and lives as long. Never
// blocks; any thread; allowed from a callback.
const char *layer_message_type(const layer_message_t *message);

// Keeps a message: the result is a handle of its own, perhaps another pointer, to be freed by
// `layer_message_free`. The bytes are shared, not copied.
//
// `message`: borrowed; NULL gives NULL. Never blocks; any thread; allowed from a callback, where
// it is the way to keep the message after the callback has returned.
LAYER_MUST_USE layer_message_t *layer_message_ref(const layer_message_t *message);

// Frees a message from `layer_message_ref` or `layer_receive_next`.
//
// `message`: taken; NULL does nothing. For a message that is lent to a callback it does nothing.
// Never blocks; any thread; allowed from a callback.
void layer_message_free(layer_message_t *message);

// The status of an error.
//
// `error`: borrowed; NULL gives `LAYER_OK`. Never blocks; any thread; allowed from a callback.
layer_status_t layer_error_status(const layer_error_t *error);

// What failed, with which value, what is allowed and what to do, in English: for logs and people.
//
// `error`: borrowed; NULL gives an empty string. The result belongs to the error and lives as
// long. It is NUL-terminated UTF-8. Never blocks; any thread; allowed from a callback.
const char *layer_error_message(const layer_error_t *error);

// Frees an error that a call gave to its caller.
//
// `error`: taken; NULL does nothing. Not for the error that is lent to a `layer_done_cb`. Never
// blocks; any thread; allowed from a callback.
void layer_error_free(layer_error_t *error);

// The name of a status, as "LAYER_FULL"; "LAYER_UNKNOWN" for a number that is none.
//
// The result is static. Never blocks; any thread; allowed from a callback.
const char *layer_status_name(int32_t status);

// The version of the library that is loaded, as "0.1.0"; `LAYER_VERSION` is that of the header.
//
// The result is static. Never blocks; any thread; allowed from a callback.
const char *layer_version(void);

// The ABI of the library that is loaded, to be compared with `LAYER_ABI_VERSION` by programs that
// load it at run time.
//
// Never blocks; any thread; allowed from a callback.
uint32_t layer_abi_version(void);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* CHANNEL_LAYER_H */
