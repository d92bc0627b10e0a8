/* What may be called inside a callback, and what may not because it would wait. */
#include "support.h"

/* Several layers, since a callback of one must not wait for another either. */
struct inside {
    layer_t *layer, *other, *polled;
    layer_t *nowhere;                      /* never ready: nothing listens on its port */
    const char *channel, *bound, *unbound; /* of `layer`: a channel, and groups */
    const char *there;                     /* a channel of `other` */
    struct probe *done, *closed;
};

static struct inside *inside_new(const char *threads) {
    struct inside *inside = case_alloc(sizeof *inside);
    inside->layer = open_layer("dispatch_threads", threads);
    inside->other = open_layer(DEFAULTS);
    inside->polled = open_layer("dispatch", "poll");
    inside->nowhere = open_cold("host", "amqp://guest:guest@127.0.0.1:1/");
    inside->channel = new_channel(inside->layer);
    inside->there = new_channel(inside->other);
    inside->bound = unique("bound-");
    inside->unbound = unique("unbound-");
    CHECK_OK(layer_group_add(inside->layer, inside->bound, new_channel(inside->layer), ERR));
    CHECK_OK(receive(inside->polled, new_channel(inside->polled), probe_new("polled"), NULL));
    return inside;
}

/* To be called in a callback: whatever would wait is refused. */
static void expect_would_deadlock(const struct inside *in) {
    layer_message_t *message = NULL;
    struct numbered m = number_message(1);
    double began = harness_now();
    for (unsigned i = 0; i < 2; i++) {
        layer_t *layer = i == 0 ? in->layer : in->other;
        const char *own = i == 0 ? in->channel : in->there;
        EXPECT_STATUS(LAYER_WOULD_DEADLOCK, layer_send(layer, in->there, m.data, m.length, ERR));
        EXPECT_STATUS(LAYER_WOULD_DEADLOCK, layer_send_json(layer, in->there, "{}", ERR));
        EXPECT_STATUS(LAYER_WOULD_DEADLOCK,
                      layer_group_send(layer, in->bound, m.data, m.length, ERR));
        EXPECT_STATUS(LAYER_WOULD_DEADLOCK, layer_group_send_json(layer, in->bound, "{}", ERR));
        EXPECT_STATUS(LAYER_WOULD_DEADLOCK, layer_group_add(layer, in->unbound, own, ERR));
        EXPECT_STATUS(LAYER_WOULD_DEADLOCK, layer_receive_next(layer, own, 5000, &message, ERR));
    }
    EXPECT_STATUS(LAYER_WOULD_DEADLOCK, layer_wait_ready(in->nowhere, 5000, ERR));
    EXPECT_STATUS(LAYER_WOULD_DEADLOCK, layer_poll(in->polled, 0, 5000, NULL, ERR));
    EXPECT_STATUS(LAYER_WOULD_DEADLOCK, layer_poll(in->polled, 0, 0, NULL, ERR));
    EXPECT(harness_now() - began < harness_scaled(2), "calls in a callback waited %.1f s",
           harness_now() - began);
    EXPECT(message == NULL, "a pull in a callback wrote its output");
}

/* Nothing was sent, nothing was recorded. */
static void check_unchanged(const struct inside *in) {
    CHECK_NOTHING_BEFORE_FENCE(in->layer, in->other, in->there);
    CHECK_STAT(in->layer, LAYER_STAT_MEMBERSHIPS, 1);
    CHECK_STAT(in->other, LAYER_STAT_MEMBERSHIPS, 0);
    CHECK_STAT(in->layer, LAYER_STAT_GROUPS, 1);
    CHECK_STAT(in->layer, LAYER_STAT_BACKLOG, 0);
    CHECK_STAT(in->polled, LAYER_STAT_RECEIVERS, 1);
}

static int32_t wait_in_receive(struct probe *probe, layer_status_t status,
                               const layer_message_t *message) {
    (void)status;
    (void)message;
    expect_would_deadlock(probe->context);
    return LAYER_CONTINUE;
}

static void wait_in_done(struct probe *probe, layer_status_t status, const layer_error_t *error) {
    (void)status;
    (void)error;
    expect_would_deadlock(probe->context);
}

static void wait_in_event(struct probe *probe) { expect_would_deadlock(probe->context); }

CASE(a_waiting_call_in_a_receiver_would_deadlock) {
    struct inside *inside = inside_new("2");
    struct probe *probe = probe_new("receiver");
    probe->on_message = wait_in_receive;
    probe->context = inside;
    CHECK_OK(receive(inside->layer, inside->channel, probe, NULL));
    CHECK_OK(send_number(inside->other, inside->channel, 1));
    WAIT_CALLS(probe, 1);
    CHECK_OK(layer_channel_discard(inside->layer, inside->channel, ERR)); /* One more call. */
    WAIT_DESTROYS(probe, 1);
    CHECK_SEEN(probe, calls, 2);
    check_unchanged(inside);
}

CASE(a_waiting_call_in_a_done_callback_would_deadlock) {
    struct inside *inside = inside_new("1");
    struct probe *done = probe_new("done");
    done->on_done = wait_in_done;
    done->context = inside;
    CHECK_OK(send_async(inside->layer, text("%s!gone", unique("channels_")), 1, done));
    CHECK_OK(group_add_async(inside->layer, inside->bound, inside->channel, done));
    WAIT_DESTROYS(done, 2);
    CHECK_OK(layer_group_discard(inside->layer, inside->bound, inside->channel, ERR));
    check_unchanged(inside);
}

CASE(a_waiting_call_in_a_destroy_callback_would_deadlock) {
    struct inside *inside = inside_new("1");
    struct probe *probe = probe_new("receiver"), *done = probe_new("done");
    probe->on_destroy = done->on_destroy = wait_in_event;
    probe->context = done->context = inside;
    uint64_t id = 0;
    CHECK_OK(receive(inside->layer, inside->channel, probe, &id));
    CHECK_OK(layer_receive_cancel(inside->layer, id, ERR)); /* Destroys here, on this thread. */
    CHECK_SEEN(probe, destroys, 1);
    CHECK_OK(send_async(inside->layer, text("%s!gone", unique("channels_")), 1, done));
    WAIT_DESTROYS(done, 1);
    check_unchanged(inside);
    CHECK_OK(send_number(inside->layer, inside->channel, 1)); /* And outside it can wait again. */
    CHECK_PULL(inside->layer, inside->channel, 1);
}

CASE(a_waiting_call_in_an_event_callback_would_deadlock) {
    struct inside *inside = inside_new("1");
    layer_config_t *config = new_config("local_expiry", "0.1");
    struct probe *log = probe_new("log"), *state = probe_new("state");
    log->on_event = state->on_event = wait_in_event;
    log->context = state->context = inside;
    CHECK_OK(on_log(config, log));
    CHECK_OK(on_state(config, state));
    layer_t *layer = open_with(config);
    CHECK_OK(layer_wait_ready(layer, 20000, ERR));
    CHECK_OK(send_number(layer, new_channel(layer), 1)); /* Its expiry will be logged. */
    WAIT_CALLS(state, 1);
    WAIT_CALLS(log, 1);
    free_layer(layer);
    free_config(config);
    check_unchanged(inside);
}

static void give_events(layer_config_t *config, struct inside *inside, struct probe *events[3]) {
    static const char *const names[] = {"log", "state", "isolation"};
    for (size_t i = 0; i < 3; i++) {
        events[i] = probe_new(names[i]);
        events[i]->on_destroy = wait_in_event;
        events[i]->context = inside;
    }
    CHECK_OK(on_log(config, events[0]));
    CHECK_OK(on_state(config, events[1]));
    CHECK_OK(on_isolation(config, events[2]));
}

CASE(a_waiting_call_in_the_destroy_of_an_event_callback_would_deadlock) {
    struct inside *inside = inside_new("1");
    for (unsigned i = 0; i < 2; i++) {
        layer_config_t *config = new_config(DEFAULTS);
        struct probe *events[3];
        give_events(config, inside, events);
        if (i == 0) { /* The config is the last that has them, then the layer. */
            free_config(config);
        } else {
            layer_t *layer = open_with(config);
            CHECK_OK(layer_wait_ready(layer, 20000, ERR));
            free_config(config);
            free_layer(layer);
        }
        for (size_t j = 0; j < 3; j++) {
            WAIT_DESTROYS(events[j], 1);
        }
    }
    check_unchanged(inside);
    CHECK_OK(send_number(inside->layer, inside->channel, 1)); /* And outside it can wait again. */
    CHECK_PULL(inside->layer, inside->channel, 1);
}

static int32_t poll_in_receive(struct probe *probe, layer_status_t status,
                               const layer_message_t *message) {
    (void)message;
    if (status == LAYER_OK) {
        expect_would_deadlock(probe->context);
    }
    return LAYER_CONTINUE;
}

CASE(a_waiting_call_in_a_polled_callback_would_deadlock) {
    struct inside *inside = inside_new("1");
    layer_t *layer = inside->polled;
    const char *channel = new_channel(layer);
    struct probe *probe = probe_new("receiver");
    probe->on_message = poll_in_receive;
    probe->context = inside;
    uint64_t id = 0;
    CHECK_OK(receive(layer, channel, probe, &id));
    CHECK_OK(send_number(layer, channel, 1));
    CHECK_OK(layer_poll(layer, 0, 20000, NULL, ERR));
    CHECK_SEEN(probe, calls, 1);
    CHECK_OK(layer_receive_cancel(layer, id, ERR));
    check_unchanged(inside);
}

/* What never waits is allowed in a callback, and works. */
static int32_t call_what_is_allowed(struct probe *probe, layer_status_t status,
                                    const layer_message_t *lent) {
    const struct inside *in = probe->context;
    layer_t *layer = in->layer;
    layer_message_t *message = NULL;
    layer_state_t state;
    uint64_t number = 0, id = 0;
    char name[LAYER_NAME_SIZE];
    const char *json = NULL;
    if (status != LAYER_OK) {
        return LAYER_CONTINUE;
    }
    EXPECT_OK(layer_message_json(lent, &json, ERR));
    EXPECT_OK(layer_new_channel(layer, NULL, name, sizeof name, ERR));
    EXPECT_OK(layer_state(layer, &state, ERR));
    EXPECT_OK(layer_stat(layer, LAYER_STAT_RECEIVED, &number, ERR));
    EXPECT_OK(layer_wait_ready(layer, 0, ERR));
    EXPECT_STATUS(LAYER_TIMEOUT, layer_receive_next(layer, name, 0, &message, ERR));
    EXPECT_OK(layer_group_add(layer, in->bound, name, ERR)); /* It is routed here already. */
    EXPECT_OK(group_add_async(layer, in->unbound, name, in->done));
    EXPECT_OK(layer_group_discard(layer, in->bound, name, ERR));
    EXPECT_OK(send_async(layer, in->there, 2, in->done));
    EXPECT_OK(group_send_async(layer, in->bound, 3, in->done));
    EXPECT_OK(send_json_async(layer, in->there, "{\"type\": \"test\", \"n\": 4}", in->done));
    EXPECT_OK(group_send_json_async(layer, in->bound, "{}", in->done));
    struct probe *brief = probe_new("brief receiver");
    EXPECT_OK(receive(layer, name, brief, &id));
    EXPECT_OK(layer_receive_cancel(layer, id, ERR));
    EXPECT_OK(layer_channel_discard(layer, name, ERR));
    EXPECT(layer_fd(layer) == -1, "the fd is %d", layer_fd(layer));
    layer_t *mine = NULL; /* A layer of its own, opened and freed in the callback. */
    layer_config_t *config = layer_config_new();
    EXPECT_OK(layer_config_set(config, "host", test_host(), ERR));
    EXPECT_OK(layer_config_check(config, ERR));
    EXPECT_OK(layer_new(config, &mine, ERR));
    EXPECT_OK(close_async(mine, 10000, in->closed));
    layer_free(mine);
    layer_config_free(config);
    return LAYER_CONTINUE;
}

CASE(what_never_waits_is_allowed_in_a_callback) {
    struct inside *inside = inside_new("1");
    struct probe *probe = probe_new("receiver");
    inside->done = probe_new("done");
    inside->closed = probe_new("closed");
    probe->on_message = call_what_is_allowed;
    probe->context = inside;
    CHECK_OK(receive(inside->layer, inside->channel, probe, NULL));
    CHECK_OK(send_number(inside->other, inside->channel, 1));
    WAIT_CALLS(inside->done, 5);
    CHECK_SEEN(inside->done, outcomes[LAYER_OK], 5);
    WAIT_DESTROYS(inside->closed, 1);
    CHECK_SEEN(inside->closed, outcomes[LAYER_OK], 1);
    CHECK_PULL(inside->other, inside->there, 2);
    CHECK_PULL(inside->other, inside->there, 4);
    CHECK_STAT(inside->layer, LAYER_STAT_MEMBERSHIPS, 1);
}

/* Callbacks that answer each other by async sends. */
struct echo {
    layer_t *layer;
    const char *to;
    struct probe *done;
};

static int32_t answer(struct probe *probe, layer_status_t status, const layer_message_t *message) {
    struct echo *echo = probe->context;
    if (status == LAYER_OK && number_of(message) < 200) {
        EXPECT_OK(send_async(echo->layer, echo->to, number_of(message) + 1, echo->done));
    }
    return LAYER_CONTINUE;
}

CASE(callbacks_answer_each_other) {
    layer_t *layers[] = {open_layer(DEFAULTS), open_layer(DEFAULTS)};
    const char *channels[] = {new_channel(layers[0]), new_channel(layers[1])};
    struct probe *probes[] = {probe_new("one"), probe_new("other")}, *done = probe_new("done");
    for (size_t i = 0; i < 2; i++) {
        struct echo *echo = case_alloc(sizeof *echo);
        *echo = (struct echo){layers[i], channels[1 - i], done};
        probes[i]->context = echo;
        probes[i]->on_message = answer;
        CHECK_OK(receive(layers[i], channels[i], probes[i], NULL));
    }
    CHECK_OK(send_number(layers[0], channels[1], 1));
    WAIT_MESSAGES(probes[1], 100);
    WAIT_MESSAGES(probes[0], 100);
    WAIT_CALLS(done, 199);
    CHECK(probe_number(probes[0], 99) == 200, "the last is %lld",
          (long long)probe_number(probes[0], 99));
}
