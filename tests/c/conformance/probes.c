#include "support.h"

#define MOST_LOG_LINES 12

static struct probe *probes;

/* --- Probes ---------------------------------------------------------------------------------- */

struct probe *probe_new(const char *name) {
    struct probe *probe = calloc(1, sizeof *probe);
    if (probe == NULL) {
        abort();
    }
    probe->name = name;
    harness_lock();
    probe->next = probes;
    probes = probe;
    harness_unlock();
    return probe;
}

/* To be called with the lock. */
static void enter(struct probe *probe, const char *what) {
    harness_enter_callback();
    probe->calls++;
    probe->running++;
    if (probe->destroys > 0 && probe->once) {
        harness_fail(__FILE__, __LINE__, what, "%s: called after destroy", probe->name);
    }
    if (probe->ends > 0) {
        harness_fail(__FILE__, __LINE__, what, "%s: called after its last call", probe->name);
    }
}

static void leave(struct probe *probe) {
    harness_lock();
    probe->running--;
    harness_unlock();
    harness_leave_callback();
}

int32_t probe_receive(void *userdata, layer_status_t status, const layer_message_t *message) {
    struct probe *probe = userdata;
    harness_lock();
    enter(probe, "receiver");
    EXPECT(probe->running == 1, "%s: %u calls at once", probe->name, probe->running);
    if (status == LAYER_OK) {
        EXPECT(message != NULL, "%s: LAYER_OK without a message", probe->name);
        if (!probe->forget) {
            if (probe->length == probe->room) {
                probe->room = probe->room * 2 + 16;
                probe->messages = realloc(probe->messages, probe->room * sizeof probe->messages[0]);
                if (probe->messages == NULL) {
                    abort();
                }
            }
            probe->messages[probe->length] = layer_message_ref(message);
        }
        probe->length++;
    } else {
        EXPECT(status == LAYER_CANCELLED || status == LAYER_CLOSED, "%s: ended by %s", probe->name,
               layer_status_name(status));
        EXPECT(message == NULL, "%s: %s with a message", probe->name, layer_status_name(status));
        probe->ends++;
        probe->end_status = status;
    }
    int32_t flow = probe->flow;
    harness_unlock();
    if (probe->on_message != NULL) {
        flow = probe->on_message(probe, status, message);
    }
    leave(probe);
    return flow;
}

void probe_done(void *userdata, layer_status_t status, const layer_error_t *error) {
    struct probe *probe = userdata;
    harness_lock();
    enter(probe, "done");
    EXPECT((error == NULL) == (status == LAYER_OK), "%s: %s with error %p", probe->name,
           layer_status_name(status), (const void *)error);
    EXPECT(layer_error_status(error) == status, "%s: %s, and its error has %s", probe->name,
           layer_status_name(status), layer_status_name(layer_error_status(error)));
    if (status >= LAYER_OK && status <= LAYER_INTERNAL) {
        probe->outcomes[status]++;
    }
    EXPECT(status != LAYER_INTERNAL, "%s: %s", probe->name, layer_error_message(error));
    if (status != LAYER_OK) {
        free(probe->error);
        probe->error = strdup(layer_error_message(error));
    }
    harness_unlock();
    if (probe->on_done != NULL) {
        probe->on_done(probe, status, error);
    }
    leave(probe);
}

void probe_log(void *userdata, layer_log_level_t level, const char *id, const char *target,
               const char *message) {
    static const char *const names[] = {"?", "ERROR", "WARN", "INFO", "DEBUG"};
    struct probe *probe = userdata;
    char line[2048];
    bool known = level >= LAYER_LOG_ERROR && level <= LAYER_LOG_DEBUG;
    snprintf(line, sizeof line, "%s %s %s: %s", names[known ? level : 0], id, target, message);
    harness_lock();
    EXPECT(known, "%s: level %d", probe->name, (int)level);
    char **place = &probe->lines[probe->calls % (sizeof probe->lines / sizeof probe->lines[0])];
    free(*place);
    *place = strdup(line);
    enter(probe, "log");
    EXPECT(probe->running == 1 || probe->several, "%s: %u calls at once", probe->name,
           probe->running);
    harness_unlock();
    if (probe->on_event != NULL) {
        probe->on_event(probe);
    }
    leave(probe);
}

void probe_state(void *userdata, layer_state_t state, uint64_t generation) {
    struct probe *probe = userdata;
    harness_lock();
    if (probe->calls < sizeof probe->states / sizeof probe->states[0]) {
        probe->states[probe->calls] = state;
        probe->generations[probe->calls] = generation;
    }
    enter(probe, "state");
    EXPECT(probe->running == 1 || probe->several, "%s: %u calls at once", probe->name,
           probe->running);
    harness_unlock();
    if (probe->on_event != NULL) {
        probe->on_event(probe);
    }
    leave(probe);
}

void probe_isolation(void *userdata, layer_isolation_t event, const char *channel, uint64_t count) {
    struct probe *probe = userdata;
    harness_lock();
    bool is_isolating = probe->begins > probe->ends_of_isolation;
    switch (event) {
    case LAYER_ISOLATION_BEGAN:
        EXPECT(!is_isolating && channel == NULL, "%s: it begins twice, or for a channel",
               probe->name);
        probe->begins++;
        probe->waiting = count;
        probe->lost = probe->lost_by_loser = 0;
        break;
    case LAYER_ISOLATION_LOST:
        EXPECT(is_isolating && count > 0, "%s: lost %llu outside isolation", probe->name,
               (unsigned long long)count);
        probe->lost += count;
        if (channel != NULL && probe->loser != NULL && strcmp(channel, probe->loser) == 0) {
            probe->lost_by_loser += count;
        }
        break;
    case LAYER_ISOLATION_ENDED:
        EXPECT(is_isolating && channel == NULL, "%s: it ends and has not begun", probe->name);
        EXPECT(count == probe->lost, "%s: lost %llu by channel and %llu in all", probe->name,
               (unsigned long long)probe->lost, (unsigned long long)count);
        probe->ends_of_isolation++;
        probe->ended = count;
        break;
    default:
        EXPECT(false, "%s: event %d", probe->name, (int)event);
    }
    enter(probe, "isolation");
    EXPECT(probe->running == 1 || probe->several, "%s: %u calls at once", probe->name,
           probe->running);
    harness_unlock();
    if (probe->on_event != NULL) {
        probe->on_event(probe);
    }
    leave(probe);
}

void probe_destroy(void *userdata) {
    struct probe *probe = userdata;
    harness_lock();
    harness_enter_callback();
    probe->destroys++;
    probe->destroying++;
    if (probe->once) {
        EXPECT(probe->destroys == 1, "%s: destroyed %u times", probe->name, probe->destroys);
        EXPECT(probe->running == 0, "%s: destroyed inside its callback", probe->name);
    } else {
        EXPECT(probe->destroys <= probe->calls - probe->running, "%s: %u destroys after %u calls",
               probe->name, probe->destroys, probe->calls - probe->running);
    }
    harness_unlock();
    if (probe->on_destroy != NULL) {
        probe->on_destroy(probe);
    }
    harness_lock();
    probe->destroying--; /* The last use of the probe: from here it may be freed. */
    harness_unlock();
    harness_leave_callback();
}

layer_status_t probe_given(struct probe *probe, layer_status_t status) {
    harness_lock();
    if (status == LAYER_OK) {
        probe->given++;
    } else {
        probe->refused++;
    }
    harness_unlock();
    return status;
}

static layer_destroy_cb destroy_of(const struct probe *probe) {
    return probe->undestroyed ? NULL : probe_destroy;
}

layer_status_t receive(layer_t *layer, const char *channel, struct probe *probe,
                       uint64_t *receiver) {
    probe->once = true;
    return probe_given(probe, layer_receive(layer, channel, probe_receive, probe, destroy_of(probe),
                                            receiver, ERR));
}

layer_status_t send_async(layer_t *layer, const char *channel, int64_t number,
                          struct probe *probe) {
    struct numbered message = number_message(number);
    return probe_given(probe, layer_send_async(layer, channel, message.data, message.length,
                                               probe_done, probe, destroy_of(probe), ERR));
}

layer_status_t group_send_async(layer_t *layer, const char *group, int64_t number,
                                struct probe *probe) {
    struct numbered message = number_message(number);
    return probe_given(probe, layer_group_send_async(layer, group, message.data, message.length,
                                                     probe_done, probe, destroy_of(probe), ERR));
}

layer_status_t send_json_async(layer_t *layer, const char *channel, const char *json,
                               struct probe *probe) {
    return probe_given(probe, layer_send_json_async(layer, channel, json, probe_done, probe,
                                                    destroy_of(probe), ERR));
}

layer_status_t group_send_json_async(layer_t *layer, const char *group, const char *json,
                                     struct probe *probe) {
    return probe_given(probe, layer_group_send_json_async(layer, group, json, probe_done, probe,
                                                          destroy_of(probe), ERR));
}

layer_status_t group_add_async(layer_t *layer, const char *group, const char *channel,
                               struct probe *probe) {
    return probe_given(probe, layer_group_add_async(layer, group, channel, probe_done, probe,
                                                    destroy_of(probe), ERR));
}

layer_status_t close_async(layer_t *layer, uint32_t timeout_ms, struct probe *probe) {
    return probe_given(
        probe, layer_close_async(layer, timeout_ms, probe_done, probe, destroy_of(probe), ERR));
}

layer_status_t on_log(layer_config_t *config, struct probe *probe) {
    probe->once = probe->events = true;
    return probe_given(probe,
                       layer_config_on_log(config, probe_log, probe, destroy_of(probe), ERR));
}

layer_status_t on_state(layer_config_t *config, struct probe *probe) {
    probe->once = probe->events = true;
    return probe_given(probe,
                       layer_config_on_state(config, probe_state, probe, destroy_of(probe), ERR));
}

layer_status_t on_isolation(layer_config_t *config, struct probe *probe) {
    probe->once = probe->events = true;
    return probe_given(
        probe, layer_config_on_isolation(config, probe_isolation, probe, destroy_of(probe), ERR));
}

int64_t probe_number(struct probe *probe, size_t nth) {
    harness_lock();
    int64_t number = nth < probe->length ? number_of(probe->messages[nth]) : INT64_MIN;
    harness_unlock();
    return number;
}

bool was_logged(struct probe *log, const char *what) {
    bool found = false;
    harness_lock();
    for (size_t i = 0; i < sizeof log->lines / sizeof log->lines[0]; i++) {
        found = found || (log->lines[i] != NULL && strstr(log->lines[i], what) != NULL);
    }
    harness_unlock();
    return found;
}

/* --- The ledger ------------------------------------------------------------------------------ */

static void check_ledger(const struct probe *probe) {
    const char *name = probe->name;
    unsigned destroys = probe->undestroyed ? 0 : probe->given;
    if (probe->destroys != destroys) {
        harness_fail(__FILE__, __LINE__, "ledger",
                     "%s: taken by %u calls (refused by %u), destroyed %u times", name,
                     probe->given, probe->refused, probe->destroys);
    } else if (probe->given == 0 && probe->calls > 0) {
        harness_fail(__FILE__, __LINE__, "ledger", "%s: called %u times after calls that failed",
                     name, probe->calls);
    } else if (!probe->once && probe->calls != probe->given) {
        harness_fail(__FILE__, __LINE__, "ledger", "%s: taken by %u calls, called %u times", name,
                     probe->given, probe->calls);
    } else if (probe->running > 0) {
        harness_fail(__FILE__, __LINE__, "ledger", "%s: still inside its callback", name);
    }
}

static void print_log(const struct probe *probe) {
    unsigned first = probe->calls > MOST_LOG_LINES ? probe->calls - MOST_LOG_LINES : 0;
    for (unsigned i = first; i < probe->calls; i++) {
        const char *line = probe->lines[i % (sizeof probe->lines / sizeof probe->lines[0])];
        if (line != NULL) {
            harness_note("log: %s", line);
        }
    }
}

static void free_probe(struct probe *probe) {
    for (size_t i = 0; i < probe->length; i++) {
        layer_message_free(probe->messages[i]);
    }
    free(probe->messages);
    free(probe->error);
    for (size_t i = 0; i < sizeof probe->lines / sizeof probe->lines[0]; i++) {
        free(probe->lines[i]);
    }
    free(probe);
}

/* Whether all destroys have come, or with `events_alone` those of logs and states, and nobody is
 * inside one. */
static bool all_destroyed(bool events_alone) {
    bool all = true;
    for (const struct probe *probe = probes; probe != NULL; probe = probe->next) {
        bool awaited = (probe->events || !events_alone) && !probe->undestroyed;
        all = all && probe->destroying == 0 && (!awaited || probe->destroys >= probe->given);
    }
    return all;
}

void probes_settle(bool failed, bool late) {
    double deadline = harness_now() + harness_scaled(WAIT_SECONDS);
    harness_lock();
    while (!failed && !all_destroyed(!late) && harness_wait(deadline)) {
    }
    struct probe *all = probes;
    probes = NULL;
    for (struct probe *probe = all; !failed && probe != NULL; probe = probe->next) {
        check_ledger(probe);
    }
    harness_unlock();
    bool keep = harness_failed();
    while (all != NULL) {
        struct probe *next = all->next;
        if (keep) {
            harness_lock();
            print_log(all); /* A late callback may still use what is kept. */
            harness_unlock();
        } else {
            free_probe(all);
        }
        all = next;
    }
}
