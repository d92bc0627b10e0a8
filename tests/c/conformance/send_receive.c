/* Sending to a channel and receiving from it, by callback and by pull. */
#include "support.h"

CASE(send_and_receive) {
    layer_t *sender = open_layer(DEFAULTS), *receiver = open_layer(DEFAULTS);
    const char *channel = new_channel(receiver);
    struct probe *probe = probe_new("receiver");
    uint64_t id = 0;
    CHECK_OK(receive(receiver, channel, probe, &id));
    CHECK(id != 0, "the receiver's number is 0");

    struct numbered sent = number_message(7);
    CHECK_OK(layer_send(sender, channel, sent.data, sent.length, ERR));
    WAIT_MESSAGES(probe, 1);
    const layer_message_t *message = SEEN(probe, messages[0]);
    size_t length = 0;
    const uint8_t *data = layer_message_data(message, &length);
    CHECK(data != NULL && length == sent.length, "%zu bytes, not %zu", length, sent.length);
    CHECK(memcmp(data, sent.data, length) == 0, "the bytes differ");
    CHECK(strcmp(layer_message_channel(message), channel) == 0, "channel %s, not %s",
          layer_message_channel(message), channel);
    CHECK(layer_message_group(message) == NULL, "group %s", layer_message_group(message));
    CHECK(layer_message_type(message) != NULL, "no type");
    CHECK(strcmp(layer_message_type(message), "test") == 0, "type %s", layer_message_type(message));

    CHECK_OK(layer_send_json(sender, channel, "{\"type\":\"chat.text\",\"text\":\"Ahoy\"}", ERR));
    WAIT_MESSAGES(probe, 2);
    const char *json = NULL;
    CHECK_OK(layer_message_json(SEEN(probe, messages[1]), &json, ERR));
    CHECK(strcmp(json, "{\"type\":\"chat.text\",\"text\":\"Ahoy\"}") == 0, "JSON %s", json);

    CHECK_STAT(sender, LAYER_STAT_SENDS_CONFIRMED, 2);
    CHECK_STAT(receiver, LAYER_STAT_DELIVERIES, 2);
    WAIT_STAT(receiver, LAYER_STAT_RECEIVED, 2);
    CHECK_STAT(receiver, LAYER_STAT_CHANNELS, 1);
    CHECK_STAT(receiver, LAYER_STAT_RECEIVERS, 1);
}

CASE(a_layer_sends_to_its_own_channel) {
    layer_t *layer = open_layer(DEFAULTS);
    const char *channel = new_channel(layer);
    CHECK_OK(send_number(layer, channel, 1));
    CHECK_PULL(layer, channel, 1);
    CHECK_STAT(layer, LAYER_STAT_DELIVERIES, 1); /* Through the broker, without a short cut. */
}

/* Sends `count` numbered messages by layer_send_async, as many in flight as are allowed. */
struct writer {
    layer_t *layer;
    const char *channel;
    int64_t from, count;
    struct probe *done;
};

static void write_numbers(void *argument) {
    struct writer *writer = argument;
    for (int64_t i = 0; i < writer->count; i++) {
        layer_status_t status;
        while ((status = STATUS(send_async(writer->layer, writer->channel, writer->from + i,
                                           writer->done))) == LAYER_BUSY) {
            harness_pause(0.0005);
        }
        CHECK(status == LAYER_OK, "message %lld: %s (%s)", (long long)(writer->from + i),
              layer_status_name(status), error_text());
    }
}

CASE(order_with_one_writer_and_one_reader) {
    enum { COUNT = 10000 };
    layer_t *sender = open_layer("max_in_flight", "3000");
    layer_t *receiver = open_layer("remote_capacity", "20000", "prefetch_count", "500");
    const char *channel = new_channel(receiver);
    struct probe *probe = probe_new("receiver"), *done = probe_new("done");
    CHECK_OK(receive(receiver, channel, probe, NULL));
    struct writer writer = {sender, channel, 0, COUNT, done};
    write_numbers(&writer);
    WAIT_CALLS(done, COUNT);
    CHECK_SEEN(done, outcomes[LAYER_OK], COUNT);
    WAIT_MESSAGES(probe, COUNT);
    for (int64_t i = 0; i < COUNT; i++) {
        CHECK(probe_number(probe, (size_t)i) == i, "message %lld came as number %lld",
              (long long)probe_number(probe, (size_t)i), (long long)i);
    }
    WAIT_STAT(receiver, LAYER_STAT_RECEIVED, COUNT);
}

CASE(async_and_blocking_sends_keep_the_order_of_their_thread) {
    enum { COUNT = 300 };
    layer_t *sender = open_layer(DEFAULTS);
    layer_t *receiver = open_layer("remote_capacity", "1000");
    const char *channel = new_channel(receiver), *group = unique("order-");
    CHECK_OK(layer_group_add(receiver, group, channel, ERR));
    struct probe *probe = probe_new("receiver"), *done = probe_new("done");
    CHECK_OK(receive(receiver, channel, probe, NULL));
    for (int64_t i = 0; i < COUNT; i++) {
        switch (i % 5) {
        case 0:
        case 1:
            CHECK_OK(send_async(sender, channel, i, done));
            break;
        case 2:
            CHECK_OK(group_send_async(sender, group, i, done));
            break;
        case 3:
            CHECK_OK(send_number(sender, channel, i));
            break;
        default:
            CHECK_OK(group_send_number(sender, group, i));
        }
    }
    WAIT_MESSAGES(probe, COUNT);
    for (int64_t i = 0; i < COUNT; i++) {
        CHECK(probe_number(probe, (size_t)i) == i, "message %lld came as number %lld",
              (long long)probe_number(probe, (size_t)i), (long long)i);
    }
    WAIT_CALLS(done, COUNT / 5 * 3);
    CHECK_SEEN(done, outcomes[LAYER_OK], COUNT / 5 * 3);
}

/* Each of `count` numbers was seen once: by probes, whose own order must be that of the channel. */
static void check_each_once(struct probe *const *probes, size_t probes_length, size_t count) {
    unsigned char *seen = case_alloc(count);
    for (size_t p = 0; p < probes_length; p++) {
        int64_t last = -1;
        for (size_t i = 0; i < SEEN(probes[p], length); i++) {
            int64_t number = probe_number(probes[p], i);
            CHECK(number >= 0 && number < (int64_t)count, "message %lld", (long long)number);
            CHECK(seen[number]++ == 0, "message %lld came twice", (long long)number);
            CHECK(number > last, "%s got %lld after %lld", probes[p]->name, (long long)number,
                  (long long)last);
            last = number;
        }
    }
    for (size_t i = 0; i < count; i++) {
        CHECK(seen[i] == 1, "message %zu never came", i);
    }
}

CASE(two_receivers_share_a_channel_and_never_duplicate) {
    enum { COUNT = 2000 };
    layer_t *layer = open_layer("remote_capacity", "5000");
    const char *channel = new_channel(layer);
    struct probe *probes[] = {probe_new("first"), probe_new("second")};
    CHECK_OK(receive(layer, channel, probes[0], NULL));
    CHECK_OK(receive(layer, channel, probes[1], NULL));
    CHECK_STAT(layer, LAYER_STAT_RECEIVERS, 2);
    struct probe *done = probe_new("done");
    struct writer writer = {layer, channel, 0, COUNT, done};
    write_numbers(&writer);
    WAIT_FOR(probes[0]->length + probes[1]->length >= COUNT, "%zu and %zu messages",
             probes[0]->length, probes[1]->length);
    WAIT_CALLS(done, COUNT);
    WAIT_STAT(layer, LAYER_STAT_RECEIVED, COUNT);
    check_each_once(probes, 2, COUNT);
    CHECK(SEEN(probes[0], length) > 0 && SEEN(probes[1], length) > 0, "%zu and %zu messages",
          SEEN(probes[0], length), SEEN(probes[1], length));
}

CASE(a_message_sent_before_anyone_receives_waits) {
    layer_t *layer = open_layer(DEFAULTS);
    const char *for_callback = new_channel(layer), *for_pull = new_channel(layer);
    CHECK_OK(send_number(layer, for_callback, 1));
    CHECK_OK(send_number(layer, for_callback, 2));
    CHECK_OK(send_number(layer, for_pull, 3));
    WAIT_STAT(layer, LAYER_STAT_BACKLOG, 3);
    CHECK_STAT(layer, LAYER_STAT_CHANNELS, 2);
    struct probe *probe = probe_new("receiver");
    CHECK_OK(receive(layer, for_callback, probe, NULL));
    WAIT_MESSAGES(probe, 2);
    CHECK(probe_number(probe, 0) == 1 && probe_number(probe, 1) == 2, "got %lld, then %lld",
          (long long)probe_number(probe, 0), (long long)probe_number(probe, 1));
    layer_message_t *message = NULL;
    CHECK_OK(layer_receive_next(layer, for_pull, 0, &message, ERR)); /* 0 looks at what is here. */
    int64_t number = number_of(message);
    layer_message_free(message);
    CHECK(number == 3, "pulled %lld", (long long)number);
    WAIT_STAT(layer, LAYER_STAT_BACKLOG, 0);
}

CASE(a_pull_that_times_out_loses_nothing) {
    enum { COUNT = 1000 };
    layer_t *layer = open_layer("remote_capacity", "5000");
    const char *channel = new_channel(layer);
    layer_message_t *message = (layer_message_t *)&message;
    CHECK_STATUS(LAYER_TIMEOUT, layer_receive_next(layer, channel, 0, &message, ERR));
    double began = harness_now();
    CHECK_STATUS(LAYER_TIMEOUT, layer_receive_next(layer, channel, 50, &message, ERR));
    double took = harness_now() - began;
    CHECK(took >= 0.049, "a pull of 50 ms ended after %.4f s", took);
    CHECK(message == (layer_message_t *)&message, "a pull that failed wrote its output");
    CHECK_STAT(layer, LAYER_STAT_CHANNELS, 0); /* A pull that is over leaves nothing behind. */

    struct probe *done = probe_new("done");
    struct writer writer = {layer, channel, 0, COUNT, done};
    struct thread *thread = spawn(write_numbers, &writer);
    unsigned timeouts = 0;
    double deadline = harness_now() + harness_scaled(WAIT_SECONDS);
    for (int64_t next = 0; next < COUNT;) {
        layer_status_t status =
            STATUS(layer_receive_next(layer, channel, (uint32_t)(next % 2), &message, ERR));
        if (status == LAYER_OK) {
            int64_t number = number_of(message);
            layer_message_free(message);
            CHECK(number == next, "pulled %lld, not %lld", (long long)number, (long long)next);
            next++;
        } else {
            CHECK(status == LAYER_TIMEOUT, "%s (%s)", layer_status_name(status), error_text());
            timeouts++;
            CHECK(harness_now() < deadline, "message %lld never came", (long long)next);
        }
    }
    join(thread);
    WAIT_CALLS(done, COUNT);
    CHECK(timeouts > 0, "no pull timed out, so nothing was shown");
}

struct puller {
    layer_t *layer;
    const char *channel;
    struct probe *kept;
};

/* Until the channel is discarded while it waits. */
static void pull_all(void *argument) {
    struct puller *puller = argument;
    for (;;) {
        layer_message_t *message = NULL;
        layer_status_t status = STATUS(layer_receive_next(
            puller->layer, puller->channel, (uint32_t)(harness_scaled(60) * 1000), &message, ERR));
        if (status == LAYER_CANCELLED) {
            return;
        }
        CHECK(status == LAYER_OK, "%s (%s)", layer_status_name(status), error_text());
        probe_receive(puller->kept, status, message);
        layer_message_free(message);
    }
}

/* A puller may be between two pulls when the channel is discarded: then once more. */
static void end_puller(const struct puller *puller, struct thread *thread) {
    double deadline = harness_now() + harness_scaled(WAIT_SECONDS);
    while (!thread_ended(thread) && harness_now() < deadline) {
        CHECK_OK(layer_channel_discard(puller->layer, puller->channel, ERR));
        harness_pause(0.005);
    }
    join(thread);
}

CASE(pulls_of_several_threads_share_a_channel) {
    enum { COUNT = 1000, PULLERS = 4 };
    layer_t *layer = open_layer("remote_capacity", "5000");
    const char *channel = new_channel(layer);
    struct probe *kept[PULLERS];
    struct puller pullers[PULLERS];
    struct thread *threads[PULLERS];
    for (size_t i = 0; i < PULLERS; i++) {
        kept[i] = probe_new(text("puller %zu", i));
        pullers[i] = (struct puller){layer, channel, kept[i]};
        threads[i] = spawn(pull_all, &pullers[i]);
    }
    struct probe *done = probe_new("done");
    struct writer writer = {layer, channel, 0, COUNT, done};
    write_numbers(&writer);
    WAIT_FOR(kept[0]->length + kept[1]->length + kept[2]->length + kept[3]->length >= COUNT,
             "%zu, %zu, %zu and %zu messages", kept[0]->length, kept[1]->length, kept[2]->length,
             kept[3]->length);
    WAIT_CALLS(done, COUNT);
    for (size_t i = 0; i < PULLERS; i++) {
        end_puller(&pullers[i], threads[i]);
    }
    check_each_once(kept, PULLERS, COUNT);
    for (size_t i = 0; i < PULLERS; i++) { /* They counted here, and were never given away. */
        kept[i]->calls = 0;
    }
}

CASE(pulls_and_a_receiver_share_a_channel) {
    enum { COUNT = 500 };
    layer_t *layer = open_layer("remote_capacity", "5000");
    const char *channel = new_channel(layer);
    struct probe *probes[] = {probe_new("receiver"), probe_new("puller")};
    struct puller puller = {layer, channel, probes[1]};
    struct thread *thread = spawn(pull_all, &puller);
    CHECK_OK(receive(layer, channel, probes[0], NULL));
    struct probe *done = probe_new("done");
    struct writer writer = {layer, channel, 0, COUNT, done};
    write_numbers(&writer);
    WAIT_FOR(probes[0]->length + probes[1]->length >= COUNT, "%zu and %zu messages",
             probes[0]->length, probes[1]->length);
    WAIT_CALLS(done, COUNT);
    end_puller(&puller, thread);
    check_each_once(probes, 2, COUNT);
    probes[1]->calls = 0;
}

CASE(a_callback_without_destroy_works) {
    layer_t *layer = open_layer(DEFAULTS);
    const char *channel = new_channel(layer);
    struct probe *probe = probe_new("receiver"), *done = probe_new("done");
    probe->undestroyed = done->undestroyed = true;
    CHECK_OK(receive(layer, channel, probe, NULL));
    CHECK_OK(send_async(layer, channel, 1, done));
    WAIT_MESSAGES(probe, 1);
    WAIT_CALLS(done, 1);
    free_layer(layer);
    CHECK_SEEN(probe, ends, 1);
    CHECK_SEEN(probe, end_status, LAYER_CLOSED);
}
