/* The 13 cases of channels_rabbitmq 0.0.2, by their own names. */
#include "support.h"

/* Message `type`, with a text unless it is NULL. */
static layer_status_t send_type(layer_t *layer, const char *channel, const char *type,
                                const char *said) {
    const char *json = said == NULL ? text("{\"type\":\"%s\"}", type)
                                    : text("{\"type\":\"%s\",\"text\":\"%s\"}", type, said);
    return layer_send_json(layer, channel, json, ERR);
}

static layer_status_t group_send_type(layer_t *layer, const char *group, const char *type) {
    return layer_group_send_json(layer, group, text("{\"type\":\"%s\"}", type), ERR);
}

/* The next message of a channel is `type`, with this text unless it is NULL. */
#define CHECK_RECEIVES(layer, channel, type, said)                                                 \
    check_receives(__FILE__, __LINE__, layer, channel, type, said)

static void check_receives(const char *file, int line, layer_t *layer, const char *channel,
                           const char *type, const char *said) {
    layer_message_t *message = pull(layer, channel);
    const char *got = layer_message_type(message), *json = "";
    CHECK_OK(layer_message_json(message, &json, ERR));
    if (got == NULL || strcmp(got, type) != 0 ||
        (said != NULL && strstr(json, text("\"text\":\"%s\"", said)) == NULL)) {
        harness_fail(file, line, "the message", "is %s, not of type %s with text %s", json, type,
                     said == NULL ? "(any)" : said);
        harness_leave();
    }
    layer_message_free(message);
}

CASE(test_send_receive) {
    layer_t *layer = open_layer(DEFAULTS);
    const char *channel = new_channel(layer);
    CHECK_OK(send_type(layer, channel, "test.message", "Ahoy-hoy!"));
    CHECK_RECEIVES(layer, channel, "test.message", "Ahoy-hoy!");
}

/* There, a layer opens a connection for each event loop that uses it. Here, it is one layer for
 * each thread that comes and goes. */
static void send_and_close(void *type) {
    layer_t *layer = open_layer(DEFAULTS);
    const char *channel = new_channel(layer);
    CHECK_OK(send_type(layer, channel, type, NULL));
    CHECK_RECEIVES(layer, channel, type, NULL);
    CHECK_OK(layer_close(layer, 10000, ERR));
    free_layer(layer);
}

CASE(test_multiple_event_loops) {
    join(spawn(send_and_close, "test.message.1"));
    join(spawn(send_and_close, "test.message.2"));
}

CASE(test_send_capacity) {
    layer_t *layer =
        open_layer(HOLDING, "remote_capacity", "1", "local_capacity", "1", "prefetch_count", "1");
    const char *channel = new_channel(layer);
    CHECK_OK(send_type(layer, channel, "test.message1", NULL)); /* queued and acked */
    CHECK_OK(send_type(layer, channel, "test.message2", NULL)); /* unacked */
    WAIT_STAT(layer, LAYER_STAT_DELIVERIES, 2);
    CHECK_OK(send_type(layer, channel, "test.message3", NULL)); /* ready */
    CHECK_STATUS(LAYER_FULL, send_type(layer, channel, "test.message4", NULL));

    /* Even after the error, the queue works as expected. */
    CHECK_RECEIVES(layer, channel, "test.message1", NULL);
    CHECK_RECEIVES(layer, channel, "test.message2", NULL);
    WAIT_STAT(layer, LAYER_STAT_DELIVERIES, 3); /* The acks have made room. */
    CHECK_OK(send_type(layer, channel, "test.message5", NULL));
    CHECK_RECEIVES(layer, channel, "test.message3", NULL);
    CHECK_RECEIVES(layer, channel, "test.message5", NULL);
}

CASE(test_process_local_send_receive) {
    layer_t *layer = open_layer(DEFAULTS);
    const char *channel = new_channel(layer);
    CHECK_OK(send_type(layer, channel, "test.message", "Local only please"));
    CHECK_RECEIVES(layer, channel, "test.message", "Local only please");
}

CASE(test_process_remote_send_receive) {
    layer_t *layer1 = open_layer(DEFAULTS), *layer2 = open_layer(DEFAULTS);
    const char *channel2 = new_channel(layer2);
    CHECK_OK(send_type(layer1, channel2, "test.message", "Remote only please"));
    CHECK_RECEIVES(layer2, channel2, "test.message", "Remote only please");
}

CASE(test_multi_send_receive) {
    layer_t *layer = open_layer(DEFAULTS);
    const char *channel = new_channel(layer);
    CHECK_OK(send_type(layer, channel, "message.1", NULL));
    CHECK_OK(send_type(layer, channel, "message.2", NULL));
    CHECK_OK(send_type(layer, channel, "message.3", NULL));
    CHECK_RECEIVES(layer, channel, "message.1", NULL);
    CHECK_RECEIVES(layer, channel, "message.2", NULL);
    CHECK_RECEIVES(layer, channel, "message.3", NULL);
}

CASE(test_reject_bad_channel) {
    layer_t *layer = open_layer(DEFAULTS);
    layer_message_t *message = NULL;
    CHECK_STATUS(LAYER_INVALID, send_type(layer, "=+135!", "foom", NULL));
    CHECK_STATUS(LAYER_INVALID, layer_receive_next(layer, "=+135!", 0, &message, ERR));
}

CASE(test_reject_bad_client_prefix) {
    layer_t *layer = open_layer(DEFAULTS);
    layer_message_t *message = NULL;
    CHECK_STATUS(LAYER_INVALID,
                 layer_receive_next(layer, "not-client-prefix!local_part", 0, &message, ERR));
}

CASE(test_groups_within_layer) {
    layer_t *layer = open_layer(DEFAULTS);
    const char *group = unique("test-group-"), *channel1 = new_channel(layer),
               *channel2 = new_channel(layer), *channel3 = new_channel(layer);
    CHECK_OK(layer_group_add(layer, group, channel1, ERR));
    CHECK_OK(layer_group_add(layer, group, channel2, ERR));
    CHECK_OK(layer_group_add(layer, group, channel3, ERR));
    CHECK_OK(layer_group_discard(layer, group, channel2, ERR));
    CHECK_OK(group_send_type(layer, group, "message.1"));
    CHECK_RECEIVES(layer, channel1, "message.1", NULL);
    CHECK_RECEIVES(layer, channel3, "message.1", NULL);
    /* channel2 is out of the group. It gets other messages, though. */
    CHECK_OK(send_type(layer, channel2, "message.2", NULL));
    CHECK_RECEIVES(layer, channel2, "message.2", NULL);
}

CASE(test_groups_discard) {
    layer_t *layer = open_layer(DEFAULTS);
    const char *group = unique("test-group-"), *channel1 = new_channel(layer);
    CHECK_OK(layer_group_add(layer, group, channel1, ERR));
    CHECK_OK(layer_group_discard(layer, group, channel1, ERR));
    CHECK_OK(layer_group_add(layer, group, channel1, ERR));
    CHECK_OK(layer_group_discard(layer, group, channel1, ERR));
    CHECK_OK(group_send_type(layer, group, "ignored"));
    CHECK_OK(send_type(layer, channel1, "normal", NULL));
    CHECK_RECEIVES(layer, channel1, "normal", NULL);
}

CASE(test_group_discard_when_not_connected) {
    layer_t *layer = open_cold(DEFAULTS);
    const char *group = unique("test-group-"), *channel1 = new_channel(layer);
    CHECK_OK(layer_group_discard(layer, group, channel1, ERR));
    CHECK_OK(group_send_type(layer, group, "ignored"));
    CHECK_OK(send_type(layer, channel1, "normal", NULL));
    CHECK_RECEIVES(layer, channel1, "normal", NULL);
}

CASE(test_groups_across_layers) {
    layer_t *layer1 = open_layer(DEFAULTS), *layer2 = open_layer(DEFAULTS);
    const char *group = unique("test-group-"), *channel1 = new_channel(layer1),
               *channel2 = new_channel(layer1), *channel3 = new_channel(layer2);
    CHECK_OK(layer_group_add(layer1, group, channel1, ERR));
    CHECK_OK(layer_group_add(layer1, group, channel2, ERR));
    CHECK_OK(layer_group_add(layer2, group, channel3, ERR));
    CHECK_OK(layer_group_discard(layer1, group, channel2, ERR));
    CHECK_OK(group_send_type(layer2, group, "message.1"));
    CHECK_RECEIVES(layer1, channel1, "message.1", NULL);
    CHECK_RECEIVES(layer2, channel3, "message.1", NULL);
    /* channel2 is out of the group. It gets other messages, though. */
    CHECK_OK(send_type(layer2, channel2, "message.2", NULL));
    CHECK_RECEIVES(layer1, channel2, "message.2", NULL);
}

/* There, a group send to a full queue ignores that; here it says LAYER_FULL. */
CASE(test_groups_channel_full) {
    layer_t *layer =
        open_layer(HOLDING, "local_capacity", "1", "remote_capacity", "1", "prefetch_count", "1");
    const char *group = unique("test-group-"), *channel = new_channel(layer);
    CHECK_OK(layer_group_add(layer, group, channel, ERR));
    CHECK_OK(group_send_type(layer, group, "message.1")); /* acked */
    CHECK_OK(group_send_type(layer, group, "message.2")); /* unacked */
    WAIT_STAT(layer, LAYER_STAT_DELIVERIES, 2);
    CHECK_OK(group_send_type(layer, group, "message.3")); /* ready */
    CHECK_STATUS(LAYER_FULL, group_send_type(layer, group, "message.4"));
    CHECK_STATUS(LAYER_FULL, group_send_type(layer, group, "message.5"));
    CHECK_RECEIVES(layer, channel, "message.1", NULL);
    CHECK_RECEIVES(layer, channel, "message.2", NULL);
    CHECK_RECEIVES(layer, channel, "message.3", NULL);
    /* Below capacity, all is back to normal. */
    CHECK_OK(group_send_type(layer, group, "message.6"));
    CHECK_RECEIVES(layer, channel, "message.6", NULL);
}
