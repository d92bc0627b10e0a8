/* Wrong arguments: a clear error, nothing taken, nothing changed. */
#include "support.h"

/* A call with a wrong argument, whose error must name it. */
#define CHECK_NAMES(argument, call)                                                                \
    do {                                                                                           \
        CHECK_STATUS(LAYER_INVALID, call);                                                         \
        CHECK(strstr(error_text(), argument) != NULL,                                              \
              "the error of " #call " does not name %s: %s", argument, error_text());              \
    } while (0)

/* The callbacks of calls that fail: the ledger sees to it that none of them runs. */
static layer_status_t fails(struct probe *probe, layer_status_t status) {
    return probe_given(probe, status);
}

CASE(null_for_each_argument_is_invalid_and_named) {
    layer_t *layer = open_layer(DEFAULTS);
    layer_config_t *config = new_config(DEFAULTS);
    const char *channel = new_channel(layer), *group = unique("group-"), *json = NULL;
    struct numbered m = number_message(1);
    struct probe *p = probe_new("never taken");
    layer_message_t *message = NULL;
    layer_state_t state;
    uint64_t number;
    char name[LAYER_NAME_SIZE];

    CHECK_NAMES("config", layer_config_set(NULL, "host", "memory://x", ERR));
    CHECK_NAMES("name", layer_config_set(config, NULL, "1", ERR));
    CHECK_NAMES("value", layer_config_set(config, "expiry", NULL, ERR));
    CHECK_OK(layer_config_check(NULL, ERR)); /* As for layer_new, these are the defaults. */
    CHECK_NAMES("config", fails(p, layer_config_on_log(NULL, probe_log, p, probe_destroy, ERR)));
    CHECK_NAMES("callback", fails(p, layer_config_on_log(config, NULL, p, probe_destroy, ERR)));
    CHECK_NAMES("config",
                fails(p, layer_config_on_state(NULL, probe_state, p, probe_destroy, ERR)));
    CHECK_NAMES("callback", fails(p, layer_config_on_state(config, NULL, p, probe_destroy, ERR)));
    CHECK_NAMES("config",
                fails(p, layer_config_on_isolation(NULL, probe_isolation, p, probe_destroy, ERR)));
    CHECK_NAMES("callback",
                fails(p, layer_config_on_isolation(config, NULL, p, probe_destroy, ERR)));
    CHECK_NAMES("layer", layer_new(config, NULL, ERR));
    CHECK_NAMES("layer", layer_wait_ready(NULL, 0, ERR));
    CHECK_NAMES("layer", layer_state(NULL, &state, ERR));
    CHECK_NAMES("state", layer_state(layer, NULL, ERR));
    CHECK_NAMES("layer", layer_stat(NULL, LAYER_STAT_BACKLOG, &number, ERR));
    CHECK_NAMES("value", layer_stat(layer, LAYER_STAT_BACKLOG, NULL, ERR));
    CHECK_NAMES("layer", layer_stats_prometheus(NULL, "", name, sizeof name, NULL, ERR));
    CHECK_NAMES("text", layer_stats_prometheus(layer, "", NULL, 1, NULL, ERR));
    CHECK_NAMES("length", layer_stats_prometheus(layer, "", NULL, 0, NULL, ERR));
    CHECK_NAMES("layer", layer_new_channel(NULL, "", name, sizeof name, ERR));
    CHECK_NAMES("name", layer_new_channel(layer, "", NULL, sizeof name, ERR));
    CHECK_NAMES("layer", layer_close(NULL, 0, ERR));
    CHECK_NAMES("layer", fails(p, layer_close_async(NULL, 0, probe_done, p, probe_destroy, ERR)));
    CHECK_NAMES("done", fails(p, layer_close_async(layer, 0, NULL, p, probe_destroy, ERR)));
    CHECK(layer_fd(NULL) == -1, "layer_fd(NULL) is %d", layer_fd(NULL));
    CHECK_NAMES("layer", layer_poll(NULL, 0, 0, NULL, ERR));

    CHECK_NAMES("layer", fails(p, layer_receive(NULL, channel, probe_receive, p, probe_destroy,
                                                &number, ERR)));
    CHECK_NAMES("channel", fails(p, layer_receive(layer, NULL, probe_receive, p, probe_destroy,
                                                  &number, ERR)));
    CHECK_NAMES("callback",
                fails(p, layer_receive(layer, channel, NULL, p, probe_destroy, &number, ERR)));
    CHECK_NAMES("layer", layer_receive_cancel(NULL, 1, ERR));
    CHECK_NAMES("layer", layer_receive_next(NULL, channel, 0, &message, ERR));
    CHECK_NAMES("channel", layer_receive_next(layer, NULL, 0, &message, ERR));
    CHECK_NAMES("message", layer_receive_next(layer, channel, 0, NULL, ERR));
    CHECK_NAMES("layer", layer_channel_discard(NULL, channel, ERR));
    CHECK_NAMES("channel", layer_channel_discard(layer, NULL, ERR));

    CHECK_NAMES("layer", layer_send(NULL, channel, m.data, m.length, ERR));
    CHECK_NAMES("channel", layer_send(layer, NULL, m.data, m.length, ERR));
    CHECK_NAMES("message", layer_send(layer, channel, NULL, 1, ERR));
    CHECK_NAMES("layer", layer_send_json(NULL, channel, "{}", ERR));
    CHECK_NAMES("channel", layer_send_json(layer, NULL, "{}", ERR));
    CHECK_NAMES("json", layer_send_json(layer, channel, NULL, ERR));
    CHECK_NAMES("layer", layer_group_send(NULL, group, m.data, m.length, ERR));
    CHECK_NAMES("group", layer_group_send(layer, NULL, m.data, m.length, ERR));
    CHECK_NAMES("message", layer_group_send(layer, group, NULL, 1, ERR));
    CHECK_NAMES("layer", layer_group_send_json(NULL, group, "{}", ERR));
    CHECK_NAMES("group", layer_group_send_json(layer, NULL, "{}", ERR));
    CHECK_NAMES("json", layer_group_send_json(layer, group, NULL, ERR));
    CHECK_NAMES("layer", fails(p, layer_send_async(NULL, channel, m.data, m.length, probe_done, p,
                                                   probe_destroy, ERR)));
    CHECK_NAMES("channel", fails(p, layer_send_async(layer, NULL, m.data, m.length, probe_done, p,
                                                     probe_destroy, ERR)));
    CHECK_NAMES("message", fails(p, layer_send_async(layer, channel, NULL, 1, probe_done, p,
                                                     probe_destroy, ERR)));
    CHECK_NAMES("done", fails(p, layer_send_async(layer, channel, m.data, m.length, NULL, p,
                                                  probe_destroy, ERR)));
    CHECK_NAMES("layer", fails(p, layer_group_send_async(NULL, group, m.data, m.length, probe_done,
                                                         p, probe_destroy, ERR)));
    CHECK_NAMES("group", fails(p, layer_group_send_async(layer, NULL, m.data, m.length, probe_done,
                                                         p, probe_destroy, ERR)));
    CHECK_NAMES("message", fails(p, layer_group_send_async(layer, group, NULL, 1, probe_done, p,
                                                           probe_destroy, ERR)));
    CHECK_NAMES("done", fails(p, layer_group_send_async(layer, group, m.data, m.length, NULL, p,
                                                        probe_destroy, ERR)));
    CHECK_NAMES("layer", fails(p, layer_send_json_async(NULL, channel, "{}", probe_done, p,
                                                        probe_destroy, ERR)));
    CHECK_NAMES("channel", fails(p, layer_send_json_async(layer, NULL, "{}", probe_done, p,
                                                          probe_destroy, ERR)));
    CHECK_NAMES("json", fails(p, layer_send_json_async(layer, channel, NULL, probe_done, p,
                                                       probe_destroy, ERR)));
    CHECK_NAMES("done",
                fails(p, layer_send_json_async(layer, channel, "{}", NULL, p, probe_destroy, ERR)));
    CHECK_NAMES("layer", fails(p, layer_group_send_json_async(NULL, group, "{}", probe_done, p,
                                                              probe_destroy, ERR)));
    CHECK_NAMES("group", fails(p, layer_group_send_json_async(layer, NULL, "{}", probe_done, p,
                                                              probe_destroy, ERR)));
    CHECK_NAMES("json", fails(p, layer_group_send_json_async(layer, group, NULL, probe_done, p,
                                                             probe_destroy, ERR)));
    CHECK_NAMES("done", fails(p, layer_group_send_json_async(layer, group, "{}", NULL, p,
                                                             probe_destroy, ERR)));

    CHECK_NAMES("layer", layer_group_add(NULL, group, channel, ERR));
    CHECK_NAMES("group", layer_group_add(layer, NULL, channel, ERR));
    CHECK_NAMES("channel", layer_group_add(layer, group, NULL, ERR));
    CHECK_NAMES("layer", fails(p, layer_group_add_async(NULL, group, channel, probe_done, p,
                                                        probe_destroy, ERR)));
    CHECK_NAMES("group", fails(p, layer_group_add_async(layer, NULL, channel, probe_done, p,
                                                        probe_destroy, ERR)));
    CHECK_NAMES("channel", fails(p, layer_group_add_async(layer, group, NULL, probe_done, p,
                                                          probe_destroy, ERR)));
    CHECK_NAMES("done", fails(p, layer_group_add_async(layer, group, channel, NULL, p,
                                                       probe_destroy, ERR)));
    CHECK_NAMES("layer", layer_group_discard(NULL, group, channel, ERR));
    CHECK_NAMES("group", layer_group_discard(layer, NULL, channel, ERR));
    CHECK_NAMES("channel", layer_group_discard(layer, group, NULL, ERR));

    CHECK_NAMES("message", layer_message_json(NULL, &json, ERR));
    CHECK_OK(layer_send_json(layer, channel, "{}", ERR));
    message = pull(layer, channel);
    CHECK_NAMES("json", layer_message_json(message, NULL, ERR));
    layer_message_free(message);
    CHECK_STAT(layer, LAYER_STAT_MEMBERSHIPS, 0);
    CHECK_STAT(layer, LAYER_STAT_RECEIVERS, 0);
    CHECK_STAT(layer, LAYER_STAT_SENDS_CONFIRMED, 1);
}

CASE(null_handles_are_harmless_where_no_status_is_returned) {
    size_t length = 1;
    layer_config_free(NULL);
    layer_free(NULL);
    layer_message_free(NULL);
    layer_error_free(NULL);
    CHECK(layer_message_data(NULL, &length) == NULL && length == 0, "length %zu", length);
    CHECK(layer_message_data(NULL, NULL) == NULL, "data of NULL");
    CHECK(layer_message_channel(NULL) == NULL, "channel of NULL");
    CHECK(layer_message_group(NULL) == NULL, "group of NULL");
    CHECK(layer_message_type(NULL) == NULL, "type of NULL");
    CHECK(layer_message_ref(NULL) == NULL, "reference to NULL");
    CHECK(layer_error_status(NULL) == LAYER_OK, "status %d", (int)layer_error_status(NULL));
    CHECK(layer_error_message(NULL) != NULL && *layer_error_message(NULL) == '\0',
          "message of NULL");
}

CASE(null_is_fine_where_the_header_says_so) {
    layer_t *layer = open_layer(DEFAULTS);
    const char *channel = new_channel(layer);
    CHECK_STATUS(LAYER_INVALID, layer_send_json(layer, channel, "[]", NULL)); /* No error wanted. */
    CHECK_OK(layer_send_json(layer, channel, "{}", NULL));
    layer_message_t *message = pull(layer, channel);
    CHECK(layer_message_data(message, NULL) != NULL, "no data without a length");
    layer_message_free(message);
    struct probe *probe = probe_new("receiver");
    CHECK_OK(receive(layer, channel, probe, NULL));

    layer_t *by_default = NULL; /* NULL config: amqp://guest:guest@127.0.0.1/asgi */
    CHECK_OK(layer_new(NULL, &by_default, ERR));
    own_layer(by_default);
    CHECK_OK(layer_close(by_default, 5000, ERR));
}

/* A name one byte too long. */
static const char *too_long(const char *begin) {
    char *name = case_alloc(LAYER_NAME_SIZE + 1);
    memset(name, 'x', LAYER_NAME_SIZE);
    memcpy(name, begin, strlen(begin));
    return name;
}

static const char *const bad_channels[] = {
    "",
    "no-exclamation-mark",
    "!no-queue",
    "two!!marks",
    "two!marks!apart",
    "a b!c",
    "queue!a b",
    "queue!a/b",
    "queue!\xc3\xa9",
    "queue!not-utf-8-\xff",
    "queue!line\n",
};

static const char *const bad_groups[] = {
    "", "a!b", "a b", "a/b", "gr\xc3\xbcppe", "not-utf-8-\xff", "line\n",
};

CASE(bad_channel_names_are_invalid) {
    layer_t *layer = open_layer(DEFAULTS);
    const char *group = unique("group-");
    struct numbered m = number_message(1);
    struct probe *p = probe_new("never taken");
    layer_message_t *message = NULL;
    for (size_t i = 0; i <= sizeof bad_channels / sizeof bad_channels[0]; i++) {
        bool listed = i < sizeof bad_channels / sizeof bad_channels[0];
        const char *bad = listed ? bad_channels[i] : too_long("queue!");
        CHECK_NAMES("channel", layer_send(layer, bad, m.data, m.length, ERR));
        CHECK_NAMES("channel", layer_send_json(layer, bad, "{}", ERR));
        CHECK_NAMES("channel", send_async(layer, bad, 1, p));
        CHECK_NAMES("channel", receive(layer, bad, p, NULL));
        CHECK_NAMES("channel", layer_receive_next(layer, bad, 0, &message, ERR));
        CHECK_NAMES("channel", layer_channel_discard(layer, bad, ERR));
        CHECK_NAMES("channel", layer_group_add(layer, group, bad, ERR));
        CHECK_NAMES("channel", group_add_async(layer, group, bad, p));
        CHECK_NAMES("channel", layer_group_discard(layer, group, bad, ERR));
    }
    CHECK_STATUS(LAYER_INVALID, layer_send_json(layer, "two!marks!apart", "{}", ERR));
    CHECK(strstr(error_text(), "two!marks!apart") != NULL &&
              strstr(error_text(), "allowed") != NULL,
          "the error does not say what is wrong and what is allowed: %s", error_text());
    CHECK_STAT(layer, LAYER_STAT_MEMBERSHIPS, 0);
    CHECK_STAT(layer, LAYER_STAT_CHANNELS, 0);
}

CASE(bad_group_names_are_invalid) {
    layer_t *layer = open_layer(DEFAULTS);
    const char *channel = new_channel(layer);
    struct numbered m = number_message(1);
    struct probe *p = probe_new("never taken");
    for (size_t i = 0; i <= sizeof bad_groups / sizeof bad_groups[0]; i++) {
        const char *bad =
            i < sizeof bad_groups / sizeof bad_groups[0] ? bad_groups[i] : too_long("");
        CHECK_NAMES("group", layer_group_send(layer, bad, m.data, m.length, ERR));
        CHECK_NAMES("group", layer_group_send_json(layer, bad, "{}", ERR));
        CHECK_NAMES("group", group_send_async(layer, bad, 1, p));
        CHECK_NAMES("group", layer_group_add(layer, bad, channel, ERR));
        CHECK_NAMES("group", group_add_async(layer, bad, channel, p));
        CHECK_NAMES("group", layer_group_discard(layer, bad, channel, ERR));
    }
    CHECK_STAT(layer, LAYER_STAT_MEMBERSHIPS, 0);
}

CASE(names_of_99_bytes_and_every_allowed_character_work) {
    const char *all = "ABCXYZabcxyz0189-_.";
    char local[LAYER_NAME_SIZE], group[LAYER_NAME_SIZE];
    const char *queue = unique("conformance.");
    layer_t *layer = open_layer("queue_name", queue);
    memset(local, 'x', sizeof local);
    snprintf(local, sizeof local, "%s!%s", queue, all);
    local[strlen(local)] = 'x';
    local[99] = '\0';
    snprintf(group, sizeof group, "%s%s", all, unique(""));
    memset(group + strlen(group), 'g', sizeof group - strlen(group));
    group[99] = '\0';
    CHECK_OK(layer_group_add(layer, group, local, ERR));
    CHECK_OK(send_number(layer, local, 1));
    CHECK_OK(group_send_number(layer, group, 2));
    CHECK_PULL(layer, local, 1);
    layer_message_t *message = pull(layer, local);
    CHECK(strcmp(layer_message_channel(message), local) == 0, "channel %s",
          layer_message_channel(message));
    CHECK(strcmp(layer_message_group(message), group) == 0, "group %s",
          layer_message_group(message));
    layer_message_free(message);
    const char *no_local = text("%s!", queue); /* A local part may be empty. */
    CHECK_OK(send_number(layer, no_local, 3));
    CHECK_PULL(layer, no_local, 3);
}

CASE(a_channel_of_another_layer_can_be_sent_to_and_nothing_else) {
    layer_t *layer = open_layer(DEFAULTS), *other = open_layer(DEFAULTS);
    const char *theirs = new_channel(other), *group = unique("group-");
    struct probe *p = probe_new("never taken");
    layer_message_t *message = NULL;
    CHECK_NAMES(theirs, receive(layer, theirs, p, NULL));
    CHECK_NAMES(theirs, layer_receive_next(layer, theirs, 0, &message, ERR));
    CHECK_NAMES(theirs, layer_channel_discard(layer, theirs, ERR));
    CHECK_NAMES(theirs, layer_group_add(layer, group, theirs, ERR));
    CHECK_NAMES(theirs, group_add_async(layer, group, theirs, p));
    CHECK_NAMES(theirs, layer_group_discard(layer, group, theirs, ERR));
    CHECK_OK(send_number(layer, theirs, 1));
    CHECK_PULL(other, theirs, 1);
}

CASE(new_channel_makes_names_of_its_own_queue) {
    layer_t *layer = open_layer(DEFAULTS);
    char name[LAYER_NAME_SIZE], other[LAYER_NAME_SIZE], small[16];
    CHECK_OK(layer_new_channel(layer, NULL, name, sizeof name, ERR));
    CHECK(strlen(name) == 9 + 12 + 1 + 12 && strncmp(name, "channels_", 9) == 0 && name[21] == '!',
          "the name is %s", name);
    CHECK_OK(layer_new_channel(layer, "specific.", other, sizeof other, ERR));
    CHECK(strncmp(name, other, 22) == 0 && strncmp(other + 22, "specific.", 9) == 0 &&
              strlen(other) == 22 + 9 + 12,
          "the names are %s and %s", name, other);
    CHECK_OK(layer_new_channel(layer, "", other, sizeof other, ERR));
    CHECK(strcmp(name, other) != 0, "the name %s was made twice", name);

    memset(small, '#', sizeof small);
    CHECK_NAMES("size", layer_new_channel(layer, NULL, small, sizeof small, ERR));
    CHECK_NAMES("size", layer_new_channel(layer, NULL, small, 0, ERR));
    CHECK(small[0] == '#', "a call that failed wrote its output");
    CHECK_OK(layer_new_channel(layer, NULL, other, 35, ERR)); /* Just enough. */
    CHECK_NAMES("size", layer_new_channel(layer, NULL, other, 34, ERR));
    CHECK_NAMES("prefix", layer_new_channel(layer, "a b", other, sizeof other, ERR));
    CHECK_NAMES("prefix", layer_new_channel(layer, "a!b", other, sizeof other, ERR));
    CHECK_NAMES("prefix", layer_new_channel(layer, too_long(""), other, sizeof other, ERR));
    CHECK_STAT(layer, LAYER_STAT_CHANNELS, 0); /* Nothing is registered. */
}

CASE(every_statistic_has_a_number_and_no_other_number_is_one) {
    layer_t *layer = open_layer(DEFAULTS);
    for (uint32_t which = LAYER_STAT_SENDS_CONFIRMED; which <= LAYER_STAT_DELIVERIES_HELD;
         which++) {
        stat_of(layer, which);
    }
    uint64_t value = 42;
    CHECK_NAMES("0", layer_stat(layer, 0, &value, ERR));
    CHECK_NAMES("4000000000", layer_stat(layer, 4000000000u, &value, ERR));
    CHECK(value == 42, "a call that failed wrote its output");
}

CASE(the_library_is_that_of_the_header) {
    CHECK(strcmp(layer_version(), LAYER_VERSION) == 0, "version %s, not %s", layer_version(),
          LAYER_VERSION);
    CHECK(strcmp(LAYER_VERSION, text("%d.%d.%d", LAYER_VERSION_MAJOR, LAYER_VERSION_MINOR,
                                     LAYER_VERSION_PATCH)) == 0,
          "version %s", LAYER_VERSION);
    CHECK(layer_abi_version() == LAYER_ABI_VERSION, "ABI %u, not %u", layer_abi_version(),
          LAYER_ABI_VERSION);
    static const struct {
        int32_t status;
        const char *name;
    } statuses[] = {
        {LAYER_OK, "LAYER_OK"},
        {LAYER_INVALID, "LAYER_INVALID"},
        {LAYER_FULL, "LAYER_FULL"},
        {LAYER_NO_CHANNEL, "LAYER_NO_CHANNEL"},
        {LAYER_TOO_LARGE, "LAYER_TOO_LARGE"},
        {LAYER_DISCONNECTED, "LAYER_DISCONNECTED"},
        {LAYER_BUSY, "LAYER_BUSY"},
        {LAYER_TIMEOUT, "LAYER_TIMEOUT"},
        {LAYER_UNCONFIRMED, "LAYER_UNCONFIRMED"},
        {LAYER_REFUSED, "LAYER_REFUSED"},
        {LAYER_CANCELLED, "LAYER_CANCELLED"},
        {LAYER_CLOSED, "LAYER_CLOSED"},
        {LAYER_WOULD_DEADLOCK, "LAYER_WOULD_DEADLOCK"},
        {LAYER_FORKED, "LAYER_FORKED"},
        {LAYER_INTERNAL, "LAYER_INTERNAL"},
        {15, "LAYER_UNKNOWN"},
        {-1, "LAYER_UNKNOWN"},
    };
    for (size_t i = 0; i < sizeof statuses / sizeof statuses[0]; i++) {
        CHECK(strcmp(layer_status_name(statuses[i].status), statuses[i].name) == 0, "%d is %s",
              (int)statuses[i].status, layer_status_name(statuses[i].status));
    }
}
