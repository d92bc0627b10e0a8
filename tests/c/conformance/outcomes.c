/* What a send comes to: each caller hears of its own message, and of nothing else. */
#include "support.h"

CASE(a_channel_without_a_queue_is_no_channel) {
    layer_t *layer = open_layer(DEFAULTS);
    const char *channel = text("%s!gone", unique("channels_"));
    struct numbered message = number_message(1);
    CHECK_STATUS(LAYER_NO_CHANNEL, send_number(layer, channel, 1));
    CHECK_STATUS(LAYER_NO_CHANNEL, layer_send_json(layer, channel, "{}", ERR));
    CHECK(strstr(error_text(), channel) != NULL, "the error does not name %s: %s", channel,
          error_text());
    struct probe *done = probe_new("done");
    CHECK_OK(send_async(layer, channel, 2, done));
    WAIT_CALLS(done, 1);
    CHECK(strstr(SEEN(done, error), channel) != NULL, "the error does not name %s: %s", channel,
          SEEN(done, error));
    CHECK_SEEN(done, outcomes[LAYER_NO_CHANNEL], 1);
    CHECK_STATUS(LAYER_NO_CHANNEL, layer_send(layer, channel, message.data, message.length, NULL));
    CHECK_STAT(layer, LAYER_STAT_SENDS_NO_CHANNEL, 4);
    CHECK_STAT(layer, LAYER_STAT_SENDS_CONFIRMED, 0);
    WAIT_STAT(layer, LAYER_STAT_IN_FLIGHT, 0);
}

CASE(no_channel_after_its_owner_closed) {
    layer_t *sender = open_layer(DEFAULTS);
    for (int64_t i = 0; i < 20; i++) { /* Once close has returned the queue is gone, not soon. */
        layer_t *owner = open_layer(DEFAULTS);
        const char *channel = new_channel(owner);
        CHECK_OK(send_number(sender, channel, i));
        CHECK_OK(layer_close(owner, 10000, ERR));
        layer_status_t status = STATUS(send_number(sender, channel, i));
        CHECK(status == LAYER_NO_CHANNEL, "owner %lld is closed, and a send to it is %s",
              (long long)i, layer_status_name(status));
        free_layer(owner);
        CHECK_STATUS(LAYER_NO_CHANNEL, send_number(sender, channel, i));
    }
}

CASE(a_channel_of_a_living_layer_needs_no_receiver) {
    layer_t *sender = open_layer(DEFAULTS), *owner = open_layer(DEFAULTS);
    CHECK_OK(send_number(sender, new_channel(owner), 1));
    WAIT_STAT(owner, LAYER_STAT_BACKLOG, 1);
}

CASE(a_message_of_1_mib_passes) {
    layer_t *sender = open_layer(DEFAULTS), *owner = open_layer(DEFAULTS);
    const char *channel = new_channel(owner);
    struct mp message = padded_message(5, 1 << 20);
    CHECK_OK(layer_send(sender, channel, message.data, message.length, ERR));
    layer_message_t *received = pull(owner, channel);
    size_t length = 0;
    const uint8_t *data = layer_message_data(received, &length);
    CHECK(length == message.length, "%zu bytes, not %zu", length, message.length);
    CHECK(memcmp(data, message.data, length) == 0, "the bytes differ");
    layer_message_free(received);
    mp_free(&message);
}

CASE(a_message_over_max_message_size_is_too_large) {
    layer_t *layer = open_layer("max_message_size", "2000");
    layer_t *by_default = open_layer(DEFAULTS);
    const char *channel = new_channel(layer), *group = unique("large-");
    struct mp small = padded_message(1, 1500), large = padded_message(2, 2000);
    struct probe *done = probe_new("done");
    CHECK_OK(layer_send(layer, channel, small.data, small.length, ERR));
    CHECK_STATUS(LAYER_TOO_LARGE, layer_send(layer, channel, large.data, large.length, ERR));
    CHECK(strstr(error_text(), "max_message_size") != NULL && strstr(error_text(), "2000") != NULL,
          "the error names no limit: %s", error_text());
    CHECK_STATUS(LAYER_TOO_LARGE, layer_group_send(layer, group, large.data, large.length, ERR));
    CHECK_STATUS(LAYER_TOO_LARGE,
                 probe_given(done, layer_send_async(layer, channel, large.data, large.length,
                                                    probe_done, done, probe_destroy, ERR)));
    CHECK_STATUS(LAYER_TOO_LARGE,
                 probe_given(done, layer_group_send_async(layer, group, large.data, large.length,
                                                          probe_done, done, probe_destroy, ERR)));
    char *json = case_alloc(4000);
    snprintf(json, 4000, "{\"n\":1,\"pad\":\"%02000d\"}", 0);
    CHECK_STATUS(LAYER_TOO_LARGE, layer_send_json(layer, channel, json, ERR));
    CHECK_STATUS(LAYER_TOO_LARGE, layer_group_send_json(layer, group, json, ERR));
    CHECK_STATUS(LAYER_TOO_LARGE, send_json_async(layer, channel, json, done));
    CHECK_STATUS(LAYER_TOO_LARGE, group_send_json_async(layer, group, json, done));
    CHECK_PULL(layer, channel, 1);
    CHECK_NOTHING_BEFORE_FENCE(layer, layer, channel);

    struct mp huge = padded_message(3, 16 << 20); /* The default is 16 MiB. */
    CHECK_STATUS(LAYER_TOO_LARGE, layer_send(by_default, channel, huge.data, huge.length, ERR));
    mp_free(&small);
    mp_free(&large);
    mp_free(&huge);
}

/* One full queue, one missing queue, and empty ones; by the number of a message. */
enum { THREADS = 16, SENDS_EACH = 63, TARGETS = 6, FULL_TARGET = 0, MISSING_TARGET = 1 };

struct storm {
    layer_t *sender;
    const char *channels[TARGETS];
    struct probe *done[THREADS * SENDS_EACH];
    layer_status_t outcome[THREADS * SENDS_EACH];
    unsigned next_thread;
};

static size_t target_of(size_t number) { return number * 7 % TARGETS; }

static layer_status_t expected_of(size_t target) {
    return target == FULL_TARGET      ? LAYER_FULL
           : target == MISSING_TARGET ? LAYER_NO_CHANNEL
                                      : LAYER_OK;
}

static void send_storm(void *argument) {
    struct storm *storm = argument;
    harness_lock();
    size_t first = SENDS_EACH * storm->next_thread++;
    harness_unlock();
    for (size_t number = first; number < first + SENDS_EACH; number++) {
        const char *channel = storm->channels[target_of(number)];
        if (number / TARGETS % 2 == 0) {
            storm->outcome[number] = STATUS(send_number(storm->sender, channel, (int64_t)number));
        } else {
            storm->done[number] = probe_new(text("done of %zu", number));
            CHECK_OK(send_async(storm->sender, channel, (int64_t)number, storm->done[number]));
        }
    }
}

CASE(concurrent_sends_of_16_threads_get_their_own_outcomes) {
    struct storm *storm = case_alloc(sizeof *storm);
    storm->sender = open_layer(DEFAULTS);
    layer_t *owners[TARGETS] = {0};
    owners[FULL_TARGET] =
        open_layer(HOLDING, "local_capacity", "0", "prefetch_count", "1", "remote_capacity", "1");
    storm->channels[MISSING_TARGET] = text("%s!gone", unique("channels_"));
    for (size_t i = 0; i < TARGETS; i++) {
        if (i != MISSING_TARGET) {
            if (i != FULL_TARGET) {
                owners[i] = open_layer("remote_capacity", "2000");
            }
            storm->channels[i] = new_channel(owners[i]);
        }
    }
    CHECK_OK(send_number(storm->sender, storm->channels[FULL_TARGET], -1));
    WAIT_STAT(owners[FULL_TARGET], LAYER_STAT_DELIVERIES, 1);
    CHECK_OK(send_number(storm->sender, storm->channels[FULL_TARGET], -2));
    CHECK_STATUS(LAYER_FULL, send_number(storm->sender, storm->channels[FULL_TARGET], -3));

    struct thread *threads[THREADS];
    for (size_t i = 0; i < THREADS; i++) {
        threads[i] = spawn(send_storm, storm);
    }
    for (size_t i = 0; i < THREADS; i++) {
        join(threads[i]);
    }

    size_t of_target[TARGETS] = {0};
    for (size_t number = 0; number < THREADS * SENDS_EACH; number++) {
        struct probe *done = storm->done[number];
        size_t target = target_of(number);
        layer_status_t expected = expected_of(target);
        of_target[target]++;
        if (done == NULL) {
            CHECK(storm->outcome[number] == expected, "send %zu: %s, not %s", number,
                  layer_status_name(storm->outcome[number]), layer_status_name(expected));
        } else {
            WAIT_CALLS(done, 1);
            CHECK(SEEN(done, outcomes[expected]) == 1, "async send %zu is not %s but: %s", number,
                  layer_status_name(expected), done->error == NULL ? "OK" : done->error);
        }
    }
    for (size_t target = 0; target < TARGETS; target++) {
        if (expected_of(target) != LAYER_OK) {
            continue;
        }
        unsigned char *came = case_alloc(THREADS * SENDS_EACH);
        for (size_t i = 0; i < of_target[target]; i++) {
            int64_t number = PULL_NUMBER(owners[target], storm->channels[target]);
            CHECK(number >= 0 && number < THREADS * SENDS_EACH, "message %lld", (long long)number);
            CHECK(target_of((size_t)number) == target, "message %lld came on channel %zu",
                  (long long)number, target);
            CHECK(came[number]++ == 0, "message %lld came twice", (long long)number);
        }
        CHECK_NOTHING_BEFORE_FENCE(storm->sender, owners[target], storm->channels[target]);
    }
    CHECK_STAT(storm->sender, LAYER_STAT_SENDS_FULL, 1 + of_target[FULL_TARGET]);
    CHECK_STAT(storm->sender, LAYER_STAT_SENDS_NO_CHANNEL, of_target[MISSING_TARGET]);
    CHECK_PULL(owners[FULL_TARGET], storm->channels[FULL_TARGET], -1);
    CHECK_PULL(owners[FULL_TARGET], storm->channels[FULL_TARGET], -2);
}

static void wait_at_gate(struct probe *probe, layer_status_t status, const layer_error_t *error) {
    (void)status;
    (void)error;
    GATE_WAIT((struct gate *)probe->context);
}

struct blocked {
    layer_t *layer;
    const char *channel;
    struct gate *gate;
    bool calling, gate_was_open;
    layer_status_t status;
};

static void send_blocked(void *argument) {
    struct blocked *blocked = argument;
    harness_lock();
    blocked->calling = true;
    harness_unlock();
    blocked->status = STATUS(send_number(blocked->layer, blocked->channel, 3));
    blocked->gate_was_open = gate_is_open(blocked->gate);
}

CASE(max_in_flight_refuses_async_sends_and_delays_blocking_ones) {
    layer_t *layer = open_layer("max_in_flight", "2");
    const char *channel = new_channel(layer);
    struct gate *gate = gate_new();
    struct probe *held = probe_new("held"), *refused = probe_new("refused");
    held->on_done = wait_at_gate; /* The place is held until `done` was called. */
    held->context = gate;
    CHECK_OK(send_async(layer, channel, 1, held));
    CHECK_OK(send_async(layer, channel, 2, held));
    WAIT_CALLS(held, 1);
    CHECK_STATUS(LAYER_BUSY, send_async(layer, channel, 4, refused));
    CHECK_STATUS(LAYER_BUSY, group_send_async(layer, unique("busy-"), 4, refused));
    CHECK_STAT(layer, LAYER_STAT_IN_FLIGHT, 2);

    struct blocked *blocked = case_alloc(sizeof *blocked);
    *blocked = (struct blocked){.layer = layer, .channel = channel, .gate = gate};
    struct thread *thread = spawn(send_blocked, blocked);
    WAIT_FOR(blocked->calling, "the thread never called");
    harness_pause(0.1); /* Must not end meanwhile. */
    CHECK(!thread_ended(thread), "a blocking send went past max_in_flight: %s",
          layer_status_name(blocked->status));
    CHECK_STAT(layer, LAYER_STAT_IN_FLIGHT, 2);
    gate_open(gate);
    join(thread);
    CHECK(blocked->status == LAYER_OK, "%s", layer_status_name(blocked->status));
    CHECK(blocked->gate_was_open, "the blocking send had no place to wait for");
    WAIT_CALLS(held, 2);
    CHECK_PULL(layer, channel, 1);
    CHECK_PULL(layer, channel, 2);
    CHECK_PULL(layer, channel, 3);
    WAIT_STAT(layer, LAYER_STAT_IN_FLIGHT, 0);
    CHECK_OK(send_async(layer, channel, 5, held)); /* There is room again. */
    CHECK_PULL(layer, channel, 5);
}

CASE(a_blocking_send_without_a_place_in_time_is_busy) {
    layer_t *layer = open_layer("max_in_flight", "1", "timeout", "0.3");
    const char *channel = new_channel(layer);
    struct gate *gate = gate_new();
    struct probe *held = probe_new("held");
    held->on_done = wait_at_gate;
    held->context = gate;
    CHECK_OK(send_async(layer, channel, 1, held));
    WAIT_CALLS(held, 1);
    double began = harness_now();
    CHECK_STATUS(LAYER_BUSY, send_number(layer, channel, 2));
    CHECK(harness_now() - began >= 0.29, "it waited only %.3f s", harness_now() - began);
    gate_open(gate);
    WAIT_STAT(layer, LAYER_STAT_IN_FLIGHT, 0);
    CHECK_PULL(layer, channel, 1);
    CHECK_NOTHING_BEFORE_FENCE(layer, layer, channel); /* Certainly not sent. */
}
