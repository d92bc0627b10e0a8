/* Without a broker, or without the right to use it: honest outcomes, in time. */
#include "support.h"

/* Nothing listens on port 1. */
#define NOWHERE "amqp://user:sesame@127.0.0.1:1/"

static layer_t *open_nowhere(const char *timeout) {
    return open_cold("host", NOWHERE, "timeout", timeout);
}

CASE_WHEN(sends_while_nothing_listens_are_disconnected_in_time, amqp_only) {
    layer_t *layer = open_nowhere("0.5");
    const char *channel = new_channel(layer), *group = unique("group-");
    struct probe *done = probe_new("done");
    double began = harness_now();
    CHECK_STATUS(LAYER_DISCONNECTED, send_number(layer, channel, 1));
    double took = harness_now() - began;
    CHECK(took >= 0.4 && took < harness_scaled(3), "it took %.2f s", took);
    CHECK(strstr(error_text(), "127.0.0.1") != NULL, "the error names no address: %s",
          error_text());
    CHECK(strstr(error_text(), "sesame") == NULL, "the error shows the password: %s", error_text());
    CHECK_STATUS(LAYER_DISCONNECTED, layer_send_json(layer, channel, "{}", ERR));
    CHECK_STATUS(LAYER_DISCONNECTED, group_send_number(layer, group, 1));
    CHECK_OK(send_async(layer, channel, 2, done));
    CHECK_OK(group_send_async(layer, group, 3, done));
    WAIT_CALLS(done, 2);
    CHECK_SEEN(done, outcomes[LAYER_DISCONNECTED], 2);
    CHECK_STAT(layer, LAYER_STAT_SENDS_UNSENT, 5);
    CHECK_STAT(layer, LAYER_STAT_SENDS_CONFIRMED, 0);
    layer_state_t state = LAYER_STATE_READY;
    CHECK_OK(layer_state(layer, &state, ERR));
    CHECK(state == LAYER_STATE_CONNECTING, "state %d", (int)state);
    CHECK_STAT(layer, LAYER_STAT_GENERATION, 0);
    CHECK_STATUS(LAYER_TIMEOUT, layer_wait_ready(layer, 0, ERR));
    CHECK_STATUS(LAYER_TIMEOUT, layer_wait_ready(layer, 100, ERR));
}

CASE_WHEN(a_membership_stays_while_nothing_listens, amqp_only) {
    layer_t *layer = open_nowhere("0.5");
    const char *channel = new_channel(layer), *group = unique("group-");
    struct probe *done = probe_new("done");
    CHECK_STATUS(LAYER_DISCONNECTED, layer_group_add(layer, group, channel, ERR));
    CHECK_OK(group_add_async(layer, unique("group-"), channel, done));
    WAIT_CALLS(done, 1);
    CHECK_SEEN(done, outcomes[LAYER_DISCONNECTED], 1);
    CHECK_STAT(layer, LAYER_STAT_MEMBERSHIPS, 2);
    CHECK_STAT(layer, LAYER_STAT_GROUPS_BOUND, 0);
    CHECK_OK(layer_group_discard(layer, group, channel, ERR));
    CHECK_STAT(layer, LAYER_STAT_MEMBERSHIPS, 1);
}

struct caller {
    layer_t *layer;
    const char *channel;
    unsigned kind;
    bool calling;
};

static void call_and_be_closed(void *argument) {
    struct caller *caller = argument;
    layer_message_t *message = NULL;
    harness_lock();
    caller->calling = true;
    harness_unlock();
    switch (caller->kind) {
    case 0:
        CHECK_STATUS(LAYER_CLOSED, layer_wait_ready(caller->layer, 50000, ERR));
        break;
    case 1:
        CHECK_STATUS(LAYER_CLOSED, send_number(caller->layer, caller->channel, 1));
        break;
    case 2:
        CHECK_STATUS(LAYER_CLOSED,
                     layer_group_add(caller->layer, unique("group-"), caller->channel, ERR));
        break;
    default:
        CHECK_STATUS(LAYER_CLOSED,
                     layer_receive_next(caller->layer, caller->channel, 50000, &message, ERR));
    }
}

CASE_WHEN(close_while_nothing_listens_is_prompt_and_ends_every_call, amqp_only) {
    layer_t *layer = open_nowhere("50");
    const char *channel = new_channel(layer);
    struct probe *done = probe_new("done"), *probe = probe_new("receiver");
    struct caller *callers = case_alloc(4 * sizeof *callers);
    struct thread *threads[4];
    CHECK_OK(receive(layer, channel, probe, NULL));
    CHECK_OK(send_async(layer, channel, 1, done));
    CHECK_OK(group_send_async(layer, unique("group-"), 1, done));
    CHECK_OK(group_add_async(layer, unique("group-"), channel, done));
    for (unsigned i = 0; i < 4; i++) {
        callers[i] = (struct caller){layer, i < 3 ? channel : new_channel(layer), i, false};
        threads[i] = spawn(call_and_be_closed, &callers[i]);
    }
    WAIT_FOR(callers[0].calling && callers[1].calling && callers[2].calling && callers[3].calling,
             "not all threads have called");
    harness_pause(0.1); /* None of them may end meanwhile. */
    for (size_t i = 0; i < 4; i++) {
        CHECK(!thread_ended(threads[i]), "call %zu did not wait", i);
    }
    double began = harness_now();
    CHECK_OK(layer_close(layer, 10000, ERR));
    double took = harness_now() - began;
    CHECK(took < harness_scaled(2), "close took %.1f s", took);
    for (size_t i = 0; i < 4; i++) {
        join_within(threads[i], 5);
    }
    CHECK_SEEN(done, outcomes[LAYER_CLOSED], 3);
    CHECK_SEEN(done, destroys, 3);
    CHECK_SEEN(probe, end_status, LAYER_CLOSED);
}

/* The host under test with a password that is wrong. */
static const char *host_with_password(const char *password) {
    const char *host = test_host(), *user = strstr(host, "://"), *at = strrchr(host, '@');
    CHECK(user != NULL && at != NULL, "CHANNEL_LAYER_TEST_HOST has no user and password");
    const char *colon = strchr(user + 3, ':');
    CHECK(colon != NULL && colon < at, "CHANNEL_LAYER_TEST_HOST has no password");
    return text("%.*s:%s%s", (int)(colon - host), host, password, at);
}

static void check_secret(struct probe *log, const char *password) {
    harness_lock();
    for (size_t i = 0; i < sizeof log->lines / sizeof log->lines[0]; i++) {
        EXPECT(log->lines[i] == NULL || strstr(log->lines[i], password) == NULL,
               "a log record shows the password: %s", log->lines[i]);
    }
    harness_unlock();
}

CASE_WHEN(a_wrong_password_is_refused_at_once_and_stays_secret, amqp_only) {
    static const char password[] = "open-sesame";
    layer_config_t *config = new_config("host", host_with_password(password), "timeout", "50");
    struct probe *log = probe_new("log"), *state = probe_new("state"), *done = probe_new("done");
    CHECK_OK(on_log(config, log));
    CHECK_OK(on_state(config, state));
    layer_t *layer = open_with(config);
    const char *channel = new_channel(layer);
    double began = harness_now();
    CHECK_STATUS(LAYER_REFUSED, layer_wait_ready(layer, 50000, ERR)); /* The first refusal. */
    CHECK(harness_now() - began < harness_scaled(15), "it took %.1f s", harness_now() - began);
    CHECK(strstr(error_text(), password) == NULL, "the error shows the password: %s", error_text());
    began = harness_now();
    CHECK_STATUS(LAYER_REFUSED, send_number(layer, channel, 1));
    CHECK(strstr(error_text(), password) == NULL, "the error shows the password: %s", error_text());
    CHECK_STATUS(LAYER_REFUSED, group_send_number(layer, unique("group-"), 1));
    CHECK_STATUS(LAYER_REFUSED, send_async(layer, channel, 1, done));
    CHECK_STATUS(LAYER_REFUSED, layer_group_add(layer, unique("group-"), channel, ERR));
    CHECK_STATUS(LAYER_REFUSED, layer_wait_ready(layer, 0, ERR));
    CHECK(harness_now() - began < harness_scaled(5), "calls waited %.1f s", harness_now() - began);
    layer_state_t now = LAYER_STATE_READY;
    CHECK_OK(layer_state(layer, &now, ERR));
    CHECK(now == LAYER_STATE_REFUSED, "state %d", (int)now);
    WAIT_FOR(state->calls > 0 && state->states[state->calls - 1] == LAYER_STATE_REFUSED,
             "%u changes, none to REFUSED", state->calls);
    WAIT_CALLS(log, 1);
    began = harness_now();
    CHECK_OK(layer_close(layer, 10000, ERR));
    CHECK(harness_now() - began < harness_scaled(5), "close took %.1f s", harness_now() - began);
    check_secret(log, password);
    check_secret(log, "sesame");
}

CASE_WHEN(a_send_that_waits_is_refused_with_the_first_refusal, amqp_only) {
    layer_t *layer = open_cold("host", host_with_password("wrong"), "timeout", "50");
    double began = harness_now();
    CHECK_STATUS(LAYER_REFUSED, send_number(layer, new_channel(layer), 1));
    CHECK(harness_now() - began < harness_scaled(15), "it took %.1f s", harness_now() - began);
}

CASE_WHEN(the_next_host_is_tried, amqp_only) {
    layer_t *layer = open_layer("host", text("%s,%s", NOWHERE, test_host()));
    const char *channel = new_channel(layer);
    CHECK_OK(send_number(layer, channel, 1));
    CHECK_PULL(layer, channel, 1);
}
