/* layer_channel_discard: a client went away. */
#include "support.h"

CASE(discarding_a_channel_ends_its_receivers_and_drops_its_messages) {
    layer_t *layer = open_layer(DEFAULTS);
    const char *channel = new_channel(layer), *queued = new_channel(layer);
    struct probe *probes[] = {probe_new("first"), probe_new("second"), probe_new("other channel")};
    CHECK_OK(receive(layer, channel, probes[0], NULL));
    CHECK_OK(receive(layer, channel, probes[1], NULL));
    CHECK_OK(receive(layer, new_channel(layer), probes[2], NULL));
    CHECK_OK(send_number(layer, queued, 1));
    CHECK_OK(send_number(layer, queued, 2));
    WAIT_STAT(layer, LAYER_STAT_BACKLOG, 2);
    CHECK_OK(layer_channel_discard(layer, channel, ERR));
    CHECK_OK(layer_channel_discard(layer, queued, ERR));
    for (size_t i = 0; i < 2; i++) {
        WAIT_DESTROYS(probes[i], 1);
        CHECK_SEEN(probes[i], ends, 1);
        CHECK_SEEN(probes[i], end_status, LAYER_CANCELLED);
        CHECK_SEEN(probes[i], length, 0);
    }
    CHECK_SEEN(probes[2], calls, 0);
    WAIT_STAT(layer, LAYER_STAT_BACKLOG, 0);
    CHECK_STAT(layer, LAYER_STAT_DROPPED_DISCARDED, 2);
    CHECK_STAT(layer, LAYER_STAT_RECEIVERS, 1);
    WAIT_STAT(layer, LAYER_STAT_CHANNELS, 1);
    CHECK_NOTHING_BEFORE_FENCE(layer, layer, queued);
}

CASE(discarding_a_channel_drops_its_memberships) {
    layer_t *sender = open_layer(DEFAULTS), *layer = open_layer(DEFAULTS);
    const char *groups[] = {unique("group-"), unique("group-")};
    const char *leaver = new_channel(layer), *stayer = new_channel(layer);
    CHECK_OK(layer_group_add(layer, groups[0], leaver, ERR));
    CHECK_OK(layer_group_add(layer, groups[1], leaver, ERR));
    CHECK_OK(layer_group_add(layer, groups[1], stayer, ERR));
    CHECK_OK(layer_channel_discard(layer, leaver, ERR));
    CHECK_STAT(layer, LAYER_STAT_MEMBERSHIPS, 1);
    CHECK_STAT(layer, LAYER_STAT_GROUPS, 1);
    WAIT_STAT(layer, LAYER_STAT_GROUPS_BOUND, 1);
    CHECK_OK(group_send_number(sender, groups[0], 1));
    CHECK_OK(group_send_number(sender, groups[1], 2));
    CHECK_PULL(layer, stayer, 2);
    CHECK_NOTHING_BEFORE_FENCE(sender, layer, leaver);
}

CASE(a_discarded_name_can_be_used_again) {
    layer_t *layer = open_layer(DEFAULTS);
    const char *channel = new_channel(layer), *group = unique("group-");
    for (int64_t i = 0; i < 10; i++) {
        struct probe *probe = probe_new("receiver");
        CHECK_OK(receive(layer, channel, probe, NULL));
        CHECK_OK(layer_group_add(layer, group, channel, ERR));
        CHECK_OK(send_number(layer, channel, i));
        CHECK_OK(group_send_number(layer, group, 100 + i));
        WAIT_MESSAGES(probe, 2);
        CHECK(probe_number(probe, 0) == i && probe_number(probe, 1) == 100 + i,
              "%lld, then %lld in round %lld", (long long)probe_number(probe, 0),
              (long long)probe_number(probe, 1), (long long)i);
        CHECK_OK(layer_channel_discard(layer, channel, ERR));
        WAIT_DESTROYS(probe, 1);
        CHECK_SEEN(probe, ends, 1);
    }
}

CASE(discarding_a_channel_that_holds_nothing_is_ok) {
    layer_t *layer = open_layer(DEFAULTS);
    const char *channel = new_channel(layer);
    CHECK_OK(layer_channel_discard(layer, channel, ERR));
    CHECK_OK(layer_channel_discard(layer, channel, ERR));
    CHECK_STAT(layer, LAYER_STAT_CHANNELS, 0);
}

struct waiting_pull {
    layer_t *layer;
    const char *channel;
    layer_status_t status;
};

static void pull_and_wait(void *argument) {
    struct waiting_pull *pull = argument;
    layer_message_t *message = (layer_message_t *)pull;
    pull->status = STATUS(layer_receive_next(pull->layer, pull->channel,
                                             (uint32_t)(harness_scaled(50) * 1000), &message, ERR));
    CHECK(message == (layer_message_t *)pull, "a pull that failed wrote its output");
}

CASE(a_pull_that_waits_is_cancelled_by_a_discard) {
    layer_t *layer = open_layer(DEFAULTS);
    struct waiting_pull *pull = case_alloc(sizeof *pull);
    *pull = (struct waiting_pull){layer, new_channel(layer), LAYER_OK};
    struct thread *thread = spawn(pull_and_wait, pull);
    /* Whether the pull waits already cannot be seen from here: discard until it has ended. */
    double deadline = harness_now() + harness_scaled(WAIT_SECONDS);
    while (!thread_ended(thread) && harness_now() < deadline) {
        CHECK_OK(layer_channel_discard(layer, pull->channel, ERR));
        harness_pause(0.01);
    }
    join(thread);
    CHECK(pull->status == LAYER_CANCELLED, "%s", layer_status_name(pull->status));
    CHECK_OK(send_number(layer, pull->channel, 1));
    CHECK_PULL(layer, pull->channel, 1);
}

struct discarder {
    layer_t *layer;
    const char *channel;
    struct gate *inside, *go_on;
};

static int32_t stay(struct probe *probe, layer_status_t status, const layer_message_t *message) {
    (void)message;
    struct discarder *discarder = probe->context;
    if (status == LAYER_OK) {
        gate_open(discarder->inside);
        GATE_WAIT(discarder->go_on);
    }
    return LAYER_CONTINUE;
}

CASE(a_discard_during_a_call_ends_the_receiver_after_it) {
    layer_t *layer = open_layer("dispatch_threads", "2");
    struct discarder *discarder = case_alloc(sizeof *discarder);
    *discarder = (struct discarder){layer, new_channel(layer), gate_new(), gate_new()};
    struct probe *probe = probe_new("receiver");
    probe->context = discarder;
    probe->on_message = stay;
    CHECK_OK(receive(layer, discarder->channel, probe, NULL));
    CHECK_OK(send_number(layer, discarder->channel, 1));
    GATE_WAIT(discarder->inside);
    CHECK_OK(layer_channel_discard(layer, discarder->channel, ERR)); /* Does not wait for it. */
    CHECK_SEEN(probe, running, 1);
    CHECK_SEEN(probe, ends, 0);
    gate_open(discarder->go_on);
    WAIT_DESTROYS(probe, 1);
    CHECK_SEEN(probe, ends, 1);
    CHECK_SEEN(probe, end_status, LAYER_CANCELLED);
    CHECK_SEEN(probe, calls, 2);
}

static int32_t discard_own_channel(struct probe *probe, layer_status_t status,
                                   const layer_message_t *message) {
    struct discarder *discarder = probe->context;
    if (status == LAYER_OK) {
        EXPECT_OK(layer_channel_discard(discarder->layer, layer_message_channel(message), ERR));
    }
    return LAYER_DECLINE; /* Declined, but the channel is gone, and the message with it. */
}

CASE(a_callback_discards_its_own_channel) {
    layer_t *layer = open_layer(DEFAULTS);
    struct discarder *discarder = case_alloc(sizeof *discarder);
    *discarder = (struct discarder){.layer = layer, .channel = new_channel(layer)};
    struct probe *probe = probe_new("receiver");
    probe->context = discarder;
    probe->on_message = discard_own_channel;
    CHECK_OK(receive(layer, discarder->channel, probe, NULL));
    CHECK_OK(send_number(layer, discarder->channel, 1));
    WAIT_DESTROYS(probe, 1);
    CHECK_SEEN(probe, length, 1);
    CHECK_NOTHING_BEFORE_FENCE(layer, layer, discarder->channel);
}

CASE(what_is_discarded_makes_room_for_what_waits_on_the_broker) {
    layer_t *layer = open_layer(HOLDING, "local_capacity", "0", "prefetch_count", "1");
    const char *dead = new_channel(layer), *alive = new_channel(layer);
    CHECK_OK(send_number(layer, dead, 1));
    WAIT_STAT(layer, LAYER_STAT_BACKLOG, 1);
    CHECK_OK(send_number(layer, alive, 2));
    CHECK_STAT(layer, LAYER_STAT_DELIVERIES, 1);
    CHECK_OK(layer_channel_discard(layer, dead, ERR));
    CHECK_PULL(layer, alive, 2);
}
