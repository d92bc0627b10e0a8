/* How receivers end: stop, decline, cancel; and what they may do inside their callbacks. */
#include "support.h"

CASE(stop_takes_the_message_and_ends_the_receiver) {
    layer_t *layer = open_layer(DEFAULTS);
    const char *channel = new_channel(layer);
    struct probe *probe = probe_new("receiver");
    probe->flow = LAYER_STOP;
    CHECK_OK(send_number(layer, channel, 1));
    CHECK_OK(send_number(layer, channel, 2));
    WAIT_STAT(layer, LAYER_STAT_BACKLOG, 2);
    CHECK_OK(receive(layer, channel, probe, NULL));
    WAIT_DESTROYS(probe, 1);
    CHECK(probe_number(probe, 0) == 1, "it got %lld", (long long)probe_number(probe, 0));
    CHECK_PULL(layer, channel, 2);
    CHECK_STAT(layer, LAYER_STAT_RECEIVERS, 0);
    CHECK_SEEN(probe, calls, 1);
}

CASE(an_unknown_flow_is_a_stop) {
    layer_t *layer = open_layer(DEFAULTS);
    const char *channel = new_channel(layer);
    struct probe *probe = probe_new("receiver");
    probe->flow = -12345;
    CHECK_OK(receive(layer, channel, probe, NULL));
    CHECK_OK(send_number(layer, channel, 1));
    WAIT_DESTROYS(probe, 1);
    CHECK_NOTHING_BEFORE_FENCE(layer, layer, channel);
    CHECK_SEEN(probe, calls, 1);
}

CASE(decline_leaves_the_message_first_in_its_channel) {
    layer_t *layer = open_layer(DEFAULTS);
    const char *channel = new_channel(layer);
    struct probe *decliner = probe_new("decliner"), *taker = probe_new("taker");
    decliner->flow = LAYER_DECLINE;
    for (int64_t i = 1; i <= 3; i++) {
        CHECK_OK(send_number(layer, channel, i));
    }
    WAIT_STAT(layer, LAYER_STAT_BACKLOG, 3);
    CHECK_OK(receive(layer, channel, decliner, NULL));
    WAIT_DESTROYS(decliner, 1);
    CHECK(probe_number(decliner, 0) == 1, "declined %lld", (long long)probe_number(decliner, 0));
    WAIT_STAT(layer, LAYER_STAT_BACKLOG, 3);
    CHECK_OK(receive(layer, channel, taker, NULL));
    WAIT_MESSAGES(taker, 3);
    for (int64_t i = 1; i <= 3; i++) {
        CHECK(probe_number(taker, (size_t)i - 1) == i, "message %lld came as number %lld",
              (long long)probe_number(taker, (size_t)i - 1), (long long)i);
    }
    CHECK_SEEN(decliner, calls, 1);
}

CASE(a_declined_message_goes_to_the_other_receiver) {
    layer_t *layer = open_layer(DEFAULTS);
    const char *channel = new_channel(layer);
    struct probe *decliner = probe_new("decliner"), *taker = probe_new("taker");
    decliner->flow = LAYER_DECLINE;
    CHECK_OK(receive(layer, channel, decliner, NULL));
    CHECK_OK(receive(layer, channel, taker, NULL));
    int64_t sent = 0;
    while (SEEN(decliner, destroys) == 0) { /* Until its turn comes. */
        CHECK(sent < 100, "of 100 messages the receiver was offered none");
        CHECK_OK(send_number(layer, channel, sent++));
        WAIT_MESSAGES(taker, sent);
    }
    for (int64_t i = 0; i < sent; i++) {
        CHECK(probe_number(taker, (size_t)i) == i, "message %lld came as number %lld",
              (long long)probe_number(taker, (size_t)i), (long long)i);
    }
    CHECK_SEEN(decliner, calls, 1);
}

/* Reads what layer_receive wrote, without a lock: the library has to order it. */
static int32_t read_number(struct probe *probe, layer_status_t status,
                           const layer_message_t *message) {
    (void)message;
    uint64_t *number = probe->context;
    EXPECT(status != LAYER_OK || *number != 0, "called before its number was written");
    return LAYER_STOP;
}

static int by_number(const void *one, const void *other) {
    uint64_t a = *(const uint64_t *)one, b = *(const uint64_t *)other;
    return a < b ? -1 : a > b;
}

CASE(a_receivers_number_is_written_before_its_first_call_and_never_reused) {
    enum { COUNT = 500 };
    layer_t *layer = open_layer("remote_capacity", "1000", "local_capacity", "1000");
    const char *channel = new_channel(layer);
    for (int64_t i = 0; i < COUNT; i++) {
        CHECK_OK(send_number(layer, channel, i));
    }
    WAIT_STAT(layer, LAYER_STAT_BACKLOG, COUNT);
    uint64_t *numbers = case_alloc(COUNT * sizeof *numbers);
    for (size_t i = 0; i < COUNT; i++) {
        struct probe *probe = probe_new("receiver");
        probe->on_message = read_number;
        probe->context = &numbers[i];
        CHECK_OK(receive(layer, channel, probe, &numbers[i]));
        WAIT_DESTROYS(probe, 1);
    }
    qsort(numbers, COUNT, sizeof *numbers, by_number);
    for (size_t i = 0; i < COUNT; i++) {
        CHECK(numbers[i] != 0, "a number is 0");
        CHECK(i == 0 || numbers[i] != numbers[i - 1], "number %llu was given twice",
              (unsigned long long)numbers[i]);
    }
}

/* A callback that says that it runs, and goes on when it may. */
struct stay {
    struct gate *inside, *go_on;
};

static int32_t stay_inside(struct probe *probe, layer_status_t status,
                           const layer_message_t *message) {
    (void)message;
    struct stay *stay = probe->context;
    if (status == LAYER_OK) {
        gate_open(stay->inside);
        GATE_WAIT(stay->go_on);
    }
    return probe->flow;
}

static struct stay *stay_new(struct probe *probe) {
    struct stay *stay = case_alloc(sizeof *stay);
    *stay = (struct stay){gate_new(), gate_new()};
    probe->context = stay;
    probe->on_message = stay_inside;
    return stay;
}

struct cancelling {
    layer_t *layer;
    uint64_t receiver;
    struct probe *probe;
    layer_status_t status;
    unsigned destroys; /* when the call returned */
    bool calling;
};

static void cancel(void *argument) {
    struct cancelling *cancelling = argument;
    harness_lock();
    cancelling->calling = true;
    harness_unlock();
    cancelling->status = STATUS(layer_receive_cancel(cancelling->layer, cancelling->receiver, ERR));
    cancelling->destroys = SEEN(cancelling->probe, destroys);
}

CASE(cancel_waits_for_the_call_that_runs_and_then_destroys) {
    layer_t *layer = open_layer(DEFAULTS);
    const char *channel = new_channel(layer);
    struct probe *probe = probe_new("receiver");
    struct stay *stay = stay_new(probe);
    struct cancelling *cancelling = case_alloc(sizeof *cancelling);
    *cancelling = (struct cancelling){.layer = layer, .probe = probe};
    CHECK_OK(receive(layer, channel, probe, &cancelling->receiver));
    CHECK_OK(send_number(layer, channel, 1));
    CHECK_OK(send_number(layer, channel, 2));
    GATE_WAIT(stay->inside);
    WAIT_STAT(layer, LAYER_STAT_BACKLOG, 1);
    struct thread *thread = spawn(cancel, cancelling);
    WAIT_FOR(cancelling->calling, "the thread never called");
    harness_pause(0.1); /* Must not end meanwhile. */
    CHECK(!thread_ended(thread), "it did not wait for the call that runs");
    CHECK_SEEN(probe, destroys, 0);
    gate_open(stay->go_on);
    join(thread);
    CHECK(cancelling->status == LAYER_OK, "%s", layer_status_name(cancelling->status));
    CHECK(cancelling->destroys == 1, "destroyed %u times when cancel returned",
          cancelling->destroys);
    CHECK_PULL(layer, channel, 2); /* Message 1 was taken, 2 was not lost. */
    CHECK_SEEN(probe, calls, 1);
    CHECK_STAT(layer, LAYER_STAT_RECEIVERS, 0);
}

CASE(each_of_two_cancels_of_one_receiver_waits_for_the_call_that_runs) {
    enum { CANCELS = 2 };
    layer_t *layer = open_layer(DEFAULTS);
    const char *channel = new_channel(layer);
    struct probe *probe = probe_new("receiver");
    struct stay *stay = stay_new(probe);
    uint64_t id = 0;
    CHECK_OK(receive(layer, channel, probe, &id));
    CHECK_OK(send_number(layer, channel, 1));
    GATE_WAIT(stay->inside);
    struct cancelling *cancels = case_alloc(CANCELS * sizeof *cancels);
    struct thread *threads[CANCELS];
    for (size_t i = 0; i < CANCELS; i++) {
        cancels[i] = (struct cancelling){.layer = layer, .receiver = id, .probe = probe};
        threads[i] = spawn(cancel, &cancels[i]);
    }
    WAIT_FOR(cancels[0].calling && cancels[1].calling, "not both threads have called");
    harness_pause(0.2); /* Neither may end meanwhile. */
    for (size_t i = 0; i < CANCELS; i++) {
        CHECK(!thread_ended(threads[i]), "cancel %zu did not wait for the call that runs", i);
    }
    CHECK_SEEN(probe, destroys, 0);
    gate_open(stay->go_on);
    for (size_t i = 0; i < CANCELS; i++) {
        join(threads[i]);
        CHECK(cancels[i].status == LAYER_OK, "%s", layer_status_name(cancels[i].status));
    }
    CHECK_SEEN(probe, destroys, 1);
    CHECK_SEEN(probe, calls, 1);
    CHECK_STAT(layer, LAYER_STAT_RECEIVERS, 0);
}

CASE(cancel_of_a_call_that_does_not_end_times_out_and_holds) {
    layer_t *layer = open_layer("timeout", "0.3", "dispatch_threads", "2");
    const char *channel = new_channel(layer);
    struct probe *probe = probe_new("receiver");
    struct stay *stay = stay_new(probe);
    uint64_t id = 0;
    CHECK_OK(receive(layer, channel, probe, &id));
    CHECK_OK(send_number(layer, channel, 1));
    GATE_WAIT(stay->inside);
    double began = harness_now();
    CHECK_STATUS(LAYER_TIMEOUT, layer_receive_cancel(layer, id, ERR));
    CHECK(harness_now() - began >= 0.29, "it waited only %.3f s", harness_now() - began);
    CHECK_SEEN(probe, destroys, 0);
    CHECK_OK(send_number(layer, channel, 2));
    gate_open(stay->go_on);
    WAIT_DESTROYS(probe, 1);
    CHECK_PULL(layer, channel, 2); /* No call began any more. */
    CHECK_SEEN(probe, calls, 1);
}

CASE(cancel_of_an_unknown_or_ended_receiver_is_ok) {
    layer_t *layer = open_layer(DEFAULTS);
    struct probe *probe = probe_new("receiver");
    uint64_t id = 0;
    CHECK_OK(layer_receive_cancel(layer, 0, ERR));
    CHECK_OK(layer_receive_cancel(layer, UINT64_MAX, ERR));
    CHECK_OK(receive(layer, new_channel(layer), probe, &id));
    CHECK_OK(layer_receive_cancel(layer, id, ERR));
    CHECK_SEEN(probe, destroys, 1); /* Nothing ran, so cancel itself destroyed. */
    CHECK_OK(layer_receive_cancel(layer, id, ERR));
    CHECK_SEEN(probe, calls, 0);
    CHECK_STAT(layer, LAYER_STAT_CHANNELS, 0);
}

struct cancels_in_callback {
    layer_t *layer;
    uint64_t receiver;
    struct gate *inside, *other_inside;
    layer_status_t status;
};

static int32_t cancel_in_callback(struct probe *probe, layer_status_t status,
                                  const layer_message_t *message) {
    (void)message;
    struct cancels_in_callback *cancels = probe->context;
    EXPECT(status == LAYER_OK, "ended by %s", layer_status_name(status));
    gate_open(cancels->inside);
    GATE_WAIT(cancels->other_inside);
    double began = harness_now();
    cancels->status = STATUS(layer_receive_cancel(cancels->layer, cancels->receiver, ERR));
    EXPECT(harness_now() - began < harness_scaled(2), "cancel in a callback waited %.1f s",
           harness_now() - began);
    return LAYER_CONTINUE;
}

CASE(a_callback_cancels_itself) {
    layer_t *layer = open_layer(DEFAULTS);
    const char *channel = new_channel(layer);
    struct probe *probe = probe_new("receiver");
    struct cancels_in_callback *own = case_alloc(sizeof *own);
    *own = (struct cancels_in_callback){.layer = layer, .inside = gate_new()};
    own->other_inside = own->inside;
    probe->on_message = cancel_in_callback;
    probe->context = own;
    CHECK_OK(receive(layer, channel, probe, &own->receiver));
    CHECK_OK(send_number(layer, channel, 1));
    CHECK_OK(send_number(layer, channel, 2));
    WAIT_DESTROYS(probe, 1);
    CHECK(own->status == LAYER_OK, "%s", layer_status_name(own->status));
    CHECK_PULL(layer, channel, 2);
    CHECK_SEEN(probe, calls, 1);
}

CASE(two_callbacks_that_cancel_each_other) {
    layer_t *layer = open_layer("dispatch_threads", "2");
    struct probe *probes[] = {probe_new("one"), probe_new("other")};
    struct cancels_in_callback *cancels = case_alloc(2 * sizeof *cancels);
    const char *channels[2];
    for (size_t i = 0; i < 2; i++) {
        channels[i] = new_channel(layer);
        cancels[i] = (struct cancels_in_callback){.layer = layer, .inside = gate_new()};
        probes[i]->on_message = cancel_in_callback;
        probes[i]->context = &cancels[i];
    }
    for (size_t i = 0; i < 2; i++) {
        cancels[i].other_inside = cancels[1 - i].inside;
        CHECK_OK(receive(layer, channels[i], probes[i], &cancels[1 - i].receiver));
    }
    for (size_t i = 0; i < 2; i++) {
        CHECK_OK(send_number(layer, channels[i], 1));
    }
    for (size_t i = 0; i < 2; i++) {
        WAIT_DESTROYS(probes[i], 1);
        CHECK(cancels[i].status == LAYER_OK, "%s", layer_status_name(cancels[i].status));
        CHECK_NOTHING_BEFORE_FENCE(layer, layer, channels[i]);
        CHECK_SEEN(probes[i], calls, 1);
    }
}

CASE(messages_outlive_their_layer) {
    layer_t *layer = open_layer(DEFAULTS);
    const char *channel = new_channel(layer), *group = unique("outlive-");
    CHECK_OK(layer_group_add(layer, group, channel, ERR));
    struct probe *probe = probe_new("receiver");
    CHECK_OK(receive(layer, channel, probe, NULL));
    CHECK_OK(group_send_number(layer, group, 1));
    CHECK_OK(send_number(layer, channel, 2));
    WAIT_MESSAGES(probe, 2);
    CHECK_OK(send_number(layer, new_channel(layer), 3));
    free_layer(layer);

    layer_message_t *message = SEEN(probe, messages[0]); /* Kept by layer_message_ref. */
    layer_message_t *again = layer_message_ref(message);
    CHECK(again != NULL, "no second reference");
    CHECK(number_of(message) == 1 && number_of(again) == 1, "%lld and %lld",
          (long long)number_of(message), (long long)number_of(again));
    layer_message_free(again);
    CHECK(strcmp(layer_message_channel(message), channel) == 0, "channel %s",
          layer_message_channel(message));
    CHECK(strcmp(layer_message_group(message), group) == 0, "group %s",
          layer_message_group(message));
    CHECK(strcmp(layer_message_type(message), "test") == 0, "type %s", layer_message_type(message));
    const char *json = NULL, *same = NULL;
    CHECK_OK(layer_message_json(message, &json, ERR));
    CHECK(strcmp(json, "{\"type\":\"test\",\"n\":1}") == 0, "JSON %s", json);
    CHECK_OK(layer_message_json(message, &same, ERR));
    CHECK(json == same, "the JSON text was made twice");
    CHECK(number_of(SEEN(probe, messages[1])) == 2, "number %lld",
          (long long)number_of(SEEN(probe, messages[1])));
}

static int32_t free_borrowed(struct probe *probe, layer_status_t status,
                             const layer_message_t *message) {
    (void)probe;
    if (status == LAYER_OK) {
        layer_message_free((layer_message_t *)(uintptr_t)message); /* Does nothing. */
        EXPECT(number_of(message) == 1, "number %lld", (long long)number_of(message));
    }
    return LAYER_STOP;
}

CASE(freeing_a_lent_message_does_nothing) {
    layer_t *layer = open_layer(DEFAULTS);
    const char *channel = new_channel(layer);
    struct probe *probe = probe_new("receiver");
    probe->on_message = free_borrowed;
    CHECK_OK(receive(layer, channel, probe, NULL));
    CHECK_OK(send_number(layer, channel, 1));
    WAIT_DESTROYS(probe, 1);
    CHECK(probe_number(probe, 0) == 1, "kept %lld", (long long)probe_number(probe, 0));
}

CASE(four_threads_keep_the_order_of_each_channel) {
    enum { CHANNELS = 32, EACH = 150 };
    layer_t *layer =
        open_layer("dispatch_threads", "4", "remote_capacity", "20000", "prefetch_count", "200");
    struct probe *probes[CHANNELS], *done = probe_new("done");
    const char *channels[CHANNELS];
    for (size_t i = 0; i < CHANNELS; i++) {
        channels[i] = new_channel(layer);
        probes[i] = probe_new(text("receiver %zu", i));
        CHECK_OK(receive(layer, channels[i], probes[i], NULL));
    }
    for (int64_t n = 0; n < EACH; n++) {
        for (size_t i = 0; i < CHANNELS; i++) {
            CHECK_OK(send_async(layer, channels[i], n, done));
        }
    }
    for (size_t i = 0; i < CHANNELS; i++) {
        WAIT_MESSAGES(probes[i], EACH); /* The probe sees to it that calls do not overlap. */
        for (int64_t n = 0; n < EACH; n++) {
            CHECK(probe_number(probes[i], (size_t)n) == n, "message %lld came as number %lld",
                  (long long)probe_number(probes[i], (size_t)n), (long long)n);
        }
    }
    WAIT_CALLS(done, CHANNELS * EACH);
    CHECK_SEEN(done, outcomes[LAYER_OK], CHANNELS * EACH);
}

/* Four callbacks that each wait for the other three. */
static int32_t meet(struct probe *probe, layer_status_t status, const layer_message_t *message) {
    (void)message;
    struct gate **gates = probe->context;
    if (status == LAYER_OK) {
        gate_open(gates[0]);
        for (size_t i = 1; i < 4; i++) {
            GATE_WAIT(gates[i]);
        }
    }
    return LAYER_CONTINUE;
}

CASE(four_threads_run_four_channels_at_once) {
    layer_t *layer = open_layer("dispatch_threads", "4");
    struct gate *gates[4] = {gate_new(), gate_new(), gate_new(), gate_new()};
    struct probe *probes[4];
    const char *channels[4];
    for (size_t i = 0; i < 4; i++) {
        channels[i] = new_channel(layer);
        probes[i] = probe_new(text("receiver %zu", i));
        struct gate **mine = case_alloc(sizeof gates);
        for (size_t j = 0; j < 4; j++) {
            mine[j] = gates[(i + j) % 4];
        }
        probes[i]->context = mine;
        probes[i]->on_message = meet;
        CHECK_OK(receive(layer, channels[i], probes[i], NULL));
    }
    for (size_t i = 0; i < 4; i++) {
        CHECK_OK(send_number(layer, channels[i], 1));
    }
    for (size_t i = 0; i < 4; i++) {
        WAIT_CALLS(probes[i], 1);
        WAIT_FOR(probes[i]->running == 0, "a callback still waits for the others");
    }
}
