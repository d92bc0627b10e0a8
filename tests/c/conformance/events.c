/* on_state and on_log: what they tell, and when their userdata is released. */
#include "support.h"

static const char *state_name(layer_state_t state) {
    static const char *const names[] = {"CONNECTING", "READY", "REFUSED", "CLOSED"};
    return state >= LAYER_STATE_CONNECTING && state <= LAYER_STATE_CLOSED ? names[state] : "?";
}

/* The states that a probe was told, as text. To be called with the lock or at the end. */
static const char *states_of(const struct probe *probe) {
    const char *all = "";
    for (unsigned i = 0; i < probe->calls && i < sizeof probe->states / sizeof *probe->states;
         i++) {
        all = text("%s %s/%llu", all, state_name(probe->states[i]),
                   (unsigned long long)probe->generations[i]);
    }
    return all;
}

static unsigned times_told(const struct probe *probe, layer_state_t state) {
    unsigned times = 0;
    for (unsigned i = 0; i < probe->calls && i < sizeof probe->states / sizeof *probe->states;
         i++) {
        times += probe->states[i] == state;
    }
    return times;
}

static bool told(const struct probe *probe, layer_state_t state) {
    return times_told(probe, state) > 0;
}

CASE(on_state_tells_of_ready_in_generation_1_and_of_closed) {
    layer_config_t *config = new_config(DEFAULTS);
    struct probe *probe = probe_new("state");
    CHECK_OK(on_state(config, probe));
    layer_t *layer = open_with(config);
    CHECK_OK(layer_wait_ready(layer, 20000, ERR));
    WAIT_FOR(told(probe, LAYER_STATE_READY), "told only:%s", states_of(probe));
    layer_state_t state = LAYER_STATE_CLOSED;
    CHECK_OK(layer_state(layer, &state, ERR));
    CHECK(state == LAYER_STATE_READY, "state %s", state_name(state));
    CHECK_STAT(layer, LAYER_STAT_GENERATION, 1);
    CHECK_OK(layer_close(layer, 10000, ERR));
    WAIT_FOR(told(probe, LAYER_STATE_CLOSED), "told only:%s", states_of(probe));
    free_layer(layer);
    unsigned calls = SEEN(probe, calls);
    CHECK(probe->states[calls - 1] == LAYER_STATE_CLOSED, "the last is not CLOSED:%s",
          states_of(probe));
    for (unsigned i = 0; i < calls; i++) {
        layer_state_t told_state = probe->states[i];
        CHECK(i == 0 || told_state != probe->states[i - 1], "no change:%s", states_of(probe));
        CHECK(probe->generations[i] == (told_state == LAYER_STATE_CONNECTING ? 0 : 1),
              "the generation is wrong:%s", states_of(probe));
    }
    CHECK_SEEN(probe, destroys, 0); /* The config may still open layers. */
    free_config(config);
    CHECK_SEEN(probe, destroys, 1);
}

/* When the last of config and layers has been freed, both have been destroyed. */
static void destroy_in_order(bool config_first) {
    layer_config_t *config = new_config(DEFAULTS);
    struct probe *log = probe_new("log"), *state = probe_new("state");
    log->several = state->several = true;
    CHECK_OK(on_log(config, log));
    CHECK_OK(on_state(config, state));
    layer_t *one = open_with(config), *other = open_with(config);
    CHECK_OK(layer_wait_ready(one, 20000, ERR));
    CHECK_OK(layer_wait_ready(other, 20000, ERR));
    WAIT_FOR(times_told(state, LAYER_STATE_READY) == 2, "told only:%s", states_of(state));
    if (config_first) {
        free_config(config);
    }
    free_layer(one);
    CHECK_SEEN(state, destroys, 0);
    CHECK_SEEN(log, destroys, 0);
    free_layer(other);
    if (!config_first) {
        CHECK_SEEN(state, destroys, 0);
        CHECK_SEEN(log, destroys, 0);
        free_config(config);
    }
    CHECK_SEEN(state, destroys, 1);
    CHECK_SEEN(log, destroys, 1);
    CHECK(times_told(state, LAYER_STATE_CLOSED) == 2, "told only:%s", states_of(state));
}

CASE(log_and_state_are_destroyed_once_config_and_layers_are_gone) {
    for (unsigned i = 0; i < 20; i++) {
        destroy_in_order(i % 2 == 0);
    }
}

CASE(log_and_state_of_a_config_without_layers_are_destroyed_with_it) {
    layer_config_t *config = new_config(DEFAULTS);
    struct probe *log = probe_new("log"), *state = probe_new("state");
    CHECK_OK(on_log(config, log));
    CHECK_OK(on_state(config, state));
    free_config(config);
    CHECK_SEEN(log, destroys, 1);
    CHECK_SEEN(state, destroys, 1);
    CHECK_SEEN(log, calls, 0);
}

CASE(a_second_callback_replaces_the_first_for_layers_made_later) {
    layer_config_t *config = new_config(DEFAULTS);
    struct probe *first = probe_new("first"), *second = probe_new("second"),
                 *unused = probe_new("never used");
    CHECK_OK(on_state(config, unused));
    CHECK_OK(on_state(config, first));
    CHECK_SEEN(unused, destroys, 1); /* No layer has it. */
    layer_t *one = open_with(config);
    CHECK_OK(on_state(config, second));
    CHECK_SEEN(first, destroys, 0); /* One layer has it still. */
    layer_t *other = open_with(config);
    CHECK_OK(layer_wait_ready(one, 20000, ERR));
    CHECK_OK(layer_wait_ready(other, 20000, ERR));
    WAIT_FOR(told(first, LAYER_STATE_READY), "told only:%s", states_of(first));
    WAIT_FOR(told(second, LAYER_STATE_READY), "told only:%s", states_of(second));
    free_layer(one);
    CHECK_SEEN(first, destroys, 1);
    CHECK_SEEN(second, destroys, 0);
    free_layer(other);
    free_config(config);
    CHECK_SEEN(second, destroys, 1);
    CHECK_SEEN(unused, calls, 0);
}

/* How many records of a level, or of any with "", contain `of`. */
static unsigned records(const char *level, const struct probe *log, const char *of) {
    unsigned count = 0;
    for (size_t i = 0; i < sizeof log->lines / sizeof *log->lines; i++) {
        count += log->lines[i] != NULL && strncmp(log->lines[i], level, strlen(level)) == 0 &&
                 strstr(log->lines[i], of) != NULL;
    }
    return count;
}

static bool warned(const struct probe *log, const char *of) {
    return records("WARN ", log, of) > 0;
}

static bool logged(const struct probe *log, const char *of) { return records("", log, of) > 0; }

CASE(on_log_gets_records_with_level_id_and_target) {
    layer_config_t *config = new_config("local_expiry", "0.2");
    struct probe *log = probe_new("log");
    CHECK_OK(on_log(config, log));
    layer_t *layer = open_with(config);
    CHECK_OK(layer_wait_ready(layer, 20000, ERR));
    const char *channel = new_channel(layer);
    CHECK_OK(send_number(layer, channel, 1));
    WAIT_FOR(warned(log, "WARN expired_dropped channel_layer::inbox: "),
             "of %u records, none has the id of expired messages", log->calls);
    WAIT_FOR(logged(log, "INFO connected channel_layer::broker: "),
             "of %u records, none has the id of a connection", log->calls);
    WAIT_FOR(warned(log, channel), "of %u records, none warns of the message that expired",
             log->calls);
    CHECK_STAT(layer, LAYER_STAT_EVENTS_DROPPED, 0);
}

/* Each message expires by itself, so that without a limit each would be logged. */
CASE(expiries_are_logged_at_a_bounded_rate) {
    enum { COUNT = 25, SECONDS_BETWEEN_WARNINGS = 5 };
    layer_config_t *config = new_config("local_expiry", "0.001");
    struct probe *log = probe_new("log");
    CHECK_OK(on_log(config, log));
    layer_t *layer = open_with(config);
    CHECK_OK(layer_wait_ready(layer, 20000, ERR));
    double begun = harness_now();
    for (int64_t i = 0; i < COUNT; i++) {
        CHECK_OK(send_number(layer, new_channel(layer), i));
        WAIT_STAT(layer, LAYER_STAT_DROPPED_EXPIRED, i + 1);
    }
    free_layer(layer);
    unsigned most = 1 + (unsigned)((harness_now() - begun) / SECONDS_BETWEEN_WARNINGS);
    unsigned warnings = records("WARN ", log, "expired_dropped");
    CHECK(warnings >= 1 && warnings <= most, "%d expiries made %u warnings, not 1 to %u", COUNT,
          warnings, most);
}

CASE(events_come_from_layer_poll_in_poll_mode) {
    layer_config_t *config = new_config("dispatch", "poll");
    struct probe *state = probe_new("state");
    CHECK_OK(on_state(config, state));
    layer_t *layer = open_with(config);
    CHECK_OK(layer_wait_ready(layer, 20000, ERR));
    CHECK_SEEN(state, calls, 0);
    double deadline = harness_now() + harness_scaled(WAIT_SECONDS);
    while (!told(state, LAYER_STATE_READY)) {
        CHECK(harness_now() < deadline, "told only:%s", states_of(state));
        CHECK_OK(layer_poll(layer, 0, 100, NULL, ERR));
    }
    CHECK_OK(layer_close(layer, 10000, ERR)); /* Runs the rest itself. */
    CHECK(told(state, LAYER_STATE_CLOSED), "told only:%s", states_of(state));
    free_layer(layer);
    free_config(config);
    CHECK_SEEN(state, destroys, 1);
}
