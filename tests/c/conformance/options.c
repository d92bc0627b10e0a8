/* Options: unknown ones, bad values, and errors that say what to do. */
#include "support.h"

CASE(an_unknown_option_is_invalid_and_named) {
    layer_config_t *config = new_config(DEFAULTS);
    static const char *const names[] = {"no_such_option", "", "Expiry", "expiry ", "\xff"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        CHECK_STATUS(LAYER_INVALID, layer_config_set(config, names[i], "1", ERR));
    }
    CHECK_STATUS(LAYER_INVALID, layer_config_set(config, "no_such_option", "1", ERR));
    CHECK(strstr(error_text(), "no_such_option") != NULL, "the error does not name it: %s",
          error_text());
    CHECK(strstr(error_text(), "local_capacity") != NULL, "the error names no option there is: %s",
          error_text());
    CHECK_STATUS(LAYER_INVALID, layer_config_set(config, "no_such_option", "1", NULL));
}

static const struct {
    const char *name, *value;
} bad_values[] = {
    {"expiry", ""},
    {"expiry", "abc"},
    {"expiry", "-1"},
    {"expiry", "1s"},
    {"expiry", "1e3"},
    {"expiry", "0x10"},
    {"expiry", " 1"},
    {"expiry", "1,5"},
    {"expiry", "nan"},
    {"expiry", "inf"},
    {"expiry", "99999999999999999999"},
    {"expiry", "0"},
    {"group_expiry", "-0.1"},
    {"group_expiry", "soon"},
    {"local_expiry", "1501"}, /* Over 25 minutes. */
    {"local_expiry", "x"},
    {"timeout", "-1"},
    {"timeout", "for ever"},
    {"connect_timeout", "x"},
    {"heartbeat", "-1"},
    {"heartbeat", "0.5"},
    {"local_capacity", "-1"},
    {"local_capacity", "1.5"},
    {"local_capacity", ""},
    {"local_capacity", "99999999999999999999"},
    {"remote_capacity", "x"},
    {"remote_capacity", "-1"},
    {"prefetch_count", "0"}, /* RabbitMQ would take it for 'no limit'. */
    {"prefetch_count", "65536"},
    {"prefetch_count", "ten"},
    {"stall_after", "never"},
    {"settle", "never"},
    {"settle", "3600.1"},
    {"stall_after", "0.0001"},
    {"channel_capacity", "0"},
    {"total_capacity", "0"},
    {"group_expiry", "0"},
    {"group_expiry", "Never"},
    {"channel_capacity", "-1"},
    {"max_in_flight", "0"},
    {"max_in_flight", "x"},
    {"max_message_size", "1 MiB"},
    {"dispatch", "Thread"},
    {"dispatch", "fibers"},
    {"dispatch_threads", "0"},
    {"dispatch_threads", "two"},
    {"groups_exchange", ""},
    {"queue_name", "a b"},
    {"queue_name", "a!b"},
    {"queue_name", "amq.mine"},
};

CASE(a_bad_value_is_invalid_and_the_error_says_what_is_allowed) {
    layer_config_t *config = new_config(DEFAULTS);
    for (size_t i = 0; i < sizeof bad_values / sizeof bad_values[0]; i++) {
        const char *name = bad_values[i].name, *value = bad_values[i].value;
        layer_status_t status = STATUS(layer_config_set(config, name, value, ERR));
        CHECK(status == LAYER_INVALID, "%s=%s: %s", name, value, layer_status_name(status));
        CHECK(strstr(error_text(), name) != NULL, "%s=%s: the error does not name the option: %s",
              name, value, error_text());
        CHECK(strstr(error_text(), value) != NULL, "%s=%s: the error does not show the value: %s",
              name, value, error_text());
        CHECK(strstr(error_text(), "allowed") != NULL || strstr(error_text(), "reserve") != NULL,
              "%s=%s: the error does not say what is allowed: %s", name, value, error_text());
    }
    layer_t *layer = open_with(config); /* What was refused has changed nothing. */
    CHECK_OK(layer_wait_ready(layer, 20000, ERR));
}

CASE(a_bad_host_is_invalid_and_its_password_stays_secret) {
    layer_config_t *config = new_config(DEFAULTS);
    static const char *const hosts[] = {
        "",
        "nonsense",
        "http://user:sesame@host/",
        "amqp://",
        "amqp://user:sesame@",
        "amqp://user:sesame@host:notaport/",
        "amqp://user:sesame@host:99999/",
        "amqp://user:sesame@host/,http://user:sesame@host/",
        "amqp://user:sesame@host/,",
        "amqp://user:%zzsesame@host/",
        /* Not percent-encoded, so that a part of the password is read as something else. */
        "amqp://user:sesame/word@host",
        "amqp://user:pass/sesame@host",
        "amqp://user:sesame?word@host",
        "amqp://user:sesame#word@host",
        "amqp://user:sesame,word@host",
        "amqp://user:[sesame/word@host",
        "memory://",
        "memory://a b",
        "memory://a,amqp://user:sesame@host/",
    };
    for (size_t i = 0; i < sizeof hosts / sizeof hosts[0]; i++) {
        layer_status_t status = STATUS(layer_config_set(config, "host", hosts[i], ERR));
        CHECK(status == LAYER_INVALID, "%s: %s", hosts[i], layer_status_name(status));
        CHECK(strstr(error_text(), "host") != NULL, "%s: the error does not name the option: %s",
              hosts[i], error_text());
        CHECK(strstr(error_text(), "sesame") == NULL, "%s: the error shows the password: %s",
              hosts[i], error_text());
    }
}

CASE(every_option_takes_its_good_values) {
    static const struct {
        const char *name, *value;
    } good[] = {
        {"expiry", "60"},
        {"expiry", "0.25"},
        {"group_expiry", "86400"},
        {"local_capacity", "0"},
        {"local_capacity", "100"},
        {"remote_capacity", "100"},
        {"prefetch_count", "65535"},
        {"prefetch_count", "1"},
        {"local_expiry", "1500"},
        {"groups_exchange", "groups"},
        {"group_expiry", "never"},
        {"stall_after", "0"},
        {"stall_after", "0.001"},
        {"channel_capacity", "1"},
        {"total_capacity", "1"},
        {"timeout", "10"},
        {"settle", "0"},
        {"settle", "0.25"},
        {"connect_timeout", "2.5"},
        {"heartbeat", "10"},
        {"max_in_flight", "1"},
        {"max_message_size", "16777216"},
        {"dispatch", "poll"},
        {"dispatch", "thread"},
        {"dispatch_threads", "4"},
        {"host", "amqp://guest:guest@127.0.0.1/asgi"},
        {"host", "amqp://a:b@one:5672/%2f,amqp://a:b@[::1]/x,amqp://host"},
        {"host", "amqps://a:b@host/"},
        {"host", "memory://some.name-1_2"},
    };
    layer_config_t *config = new_config(DEFAULTS);
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        layer_status_t status = STATUS(layer_config_set(config, good[i].name, good[i].value, ERR));
        CHECK(status == LAYER_OK, "%s=%s: %s (%s)", good[i].name, good[i].value,
              layer_status_name(status), error_text());
    }
}

CASE(a_config_is_copied_and_can_be_freed_first) {
    const char *queues[] = {unique("one-"), unique("other-")};
    layer_config_t *config = new_config("queue_name", queues[0]);
    layer_t *one = open_with(config);
    CHECK_OK(layer_config_set(config, "queue_name", queues[1], ERR));
    layer_t *other = open_with(config);
    free_config(config);
    CHECK_OK(layer_wait_ready(one, 20000, ERR));
    CHECK_OK(layer_wait_ready(other, 20000, ERR));
    const char *channels[] = {new_channel(one), new_channel(other)};
    for (size_t i = 0; i < 2; i++) {
        CHECK(strncmp(channels[i], queues[i], strlen(queues[i])) == 0, "channel %s of queue %s",
              channels[i], queues[i]);
    }
    CHECK_OK(send_number(one, channels[1], 1));
    CHECK_PULL(other, channels[1], 1);
}
