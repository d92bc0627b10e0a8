/* JSON on the way in and on the way out. */
#include "support.h"

#define BOX "\xef\xbf\xbf" /* U+FFFF: what follows is base64 of bytes. */

/* What is sent as JSON text, the MessagePack that arrives, and the JSON text that it gives; NULL
 * where that is what was sent. */
static const struct {
    const char *in, *hex, *out;
} forms[] = {
    {"{}", "80", NULL},
    {" { \"a\" : null } \n", "81a161c0", "{\"a\":null}"},
    {"{\"b\":true,\"a\":false}", "82a162c3a161c2", NULL},
    {"{\"i\":0}", "81a16900", NULL},
    {"{\"i\":-1}", "81a169ff", NULL},
    {"{\"i\":9223372036854775807}", NULL, NULL},
    {"{\"i\":-9223372036854775808}", NULL, NULL},
    {"{\"i\":9223372036854775808}", "81a169cf8000000000000000", NULL},
    {"{\"i\":18446744073709551615}", "81a169cfffffffffffffffff", NULL},
    {"{\"f\":1.5}", "81a166cb3ff8000000000000", NULL},
    {"{\"f\":1.0}", "81a166cb3ff0000000000000", NULL},
    {"{\"f\":1e2}", "81a166cb4059000000000000", "{\"f\":100.0}"},
    {"{\"s\":\"\"}", "81a173a0", NULL},
    {"{\"s\":\"\\u0041\\n\\\"\\\\\"}", "81a173a4410a225c", "{\"s\":\"A\\n\\\"\\\\\"}"},
    {"{\"s\":\"\\ud83d\\ude00\"}", "81a173a4f09f9880", "{\"s\":\"\xf0\x9f\x98\x80\"}"},
    {"{\"s\":\"a\\u0000b\"}", "81a173a3610062", NULL},
    {"{\"l\":[]}", "81a16c90", NULL},
    {"{\"l\":[1,[2,{\"m\":{}}],null]}", "81a16c930192 02 81a16d80 c0", NULL},
    {"{\"\":{\"\":[]}}", "81a081a090", NULL},
    {"{\"b\":\"" BOX "\"}", "81a162c400", NULL},
    {"{\"b\":\"" BOX "AP8=\"}", "81a162c40200ff", NULL},
    {"{\"b\":\"\\uffffQUJD\"}", "81a162c403414243", "{\"b\":\"" BOX "QUJD\"}"},
    {"{\"b\":[\"" BOX "QUI=\",\"QUI=\"]}", "81a16292c4024142a45155493d", NULL},
    {"{\"type\":\"chat.text\"}", "81a474797065a9636861742e74657874", NULL},
};

enum { WAYS = 4 };

/* Sends JSON text in one of four ways: to the channel or to the group, waiting or not. */
static layer_status_t send_text(unsigned way, layer_t *layer, const char *channel,
                                const char *group, const char *json, struct probe *done) {
    switch (way) {
    case 0:
        return layer_send_json(layer, channel, json, ERR);
    case 1:
        return layer_group_send_json(layer, group, json, ERR);
    case 2:
        return send_json_async(layer, channel, json, done);
    default:
        return group_send_json_async(layer, group, json, done);
    }
}

CASE(json_forms) {
    layer_t *layer = open_layer(DEFAULTS);
    const char *channel = new_channel(layer), *group = unique("group-");
    struct probe *done = probe_new("done");
    CHECK_OK(layer_group_add(layer, group, channel, ERR));
    for (size_t i = 0; i < WAYS * sizeof forms / sizeof forms[0]; i++) {
        const char *in = forms[i / WAYS].in, *out = forms[i / WAYS].out, *json = NULL;
        layer_status_t status =
            STATUS(send_text((unsigned)(i % WAYS), layer, channel, group, in, done));
        CHECK(status == LAYER_OK, "%s: %s (%s)", in, layer_status_name(status), error_text());
        layer_message_t *message = pull(layer, channel);
        CHECK_OK(layer_message_json(message, &json, ERR));
        CHECK(strcmp(json, out == NULL ? in : out) == 0, "%s came as %s", in, json);
        if (forms[i / WAYS].hex != NULL) {
            struct mp expected = {0};
            mp_hex(&expected, forms[i / WAYS].hex);
            size_t length = 0;
            const uint8_t *data = layer_message_data(message, &length);
            CHECK(length == expected.length && memcmp(data, expected.data, length) == 0,
                  "%s came as %zu bytes, not as %s", in, length, forms[i / WAYS].hex);
            mp_free(&expected);
        }
        layer_message_free(message);
    }
    WAIT_CALLS(done, 2 * sizeof forms / sizeof forms[0]);
    CHECK_SEEN(done, outcomes[LAYER_OK], 2 * sizeof forms / sizeof forms[0]);
}

/* Not allowed, and what its error must name. */
static const struct {
    const char *json, *says;
} refused[] = {
    {"", NULL},
    {"null", NULL},
    {"[]", NULL},
    {"\"text\"", NULL},
    {"1", NULL},
    {"{", NULL},
    {"{}x", NULL},
    {"{}{}", NULL},
    {"{\"a\":}", NULL},
    {"{\"a\":1,}", NULL},
    {"{a:1}", NULL},
    {"{\"a\":NaN}", NULL},
    {"{\"a\":Infinity}", NULL},
    {"{\"a\":01}", NULL},
    {"{\"a\":\"\\ud800\"}", NULL},
    {"{\"a\":\"\n\"}", NULL},
    {"{\"a\":\"\xff\"}", NULL},
    {"{\"big\":-9223372036854775809}", "big"},
    {"{\"big\":-18446744073709551615}", "big"},
    {"{\"big\":18446744073709551616}", "big"},
    {"{\"big\":100000000000000000000000000000}", "big"},
    {"{\"x\":{\"big\":[0,18446744073709551616]}}", "message.x.big[1]"},
    {"{\"huge\":1e999}", "huge"},
    {"{\"twin\":1,\"twin\":2}", "twin"},
    {"{\"twin\":1,\"\\u0074win\":1}", "twin"},
    {"{\"x\":{\"twin\":1,\"y\":[],\"twin\":1}}", "twin"},
    {"{\"x\":[{\"twin\":1,\"twin\":1}]}", "twin"},
    {"{\"__asgi_channel__\":\"x\"}", "__asgi_channel__"},
    {"{\"a\":1,\"__asgi_group__\":\"x\"}", "__asgi_group__"},
};

CASE(json_that_is_not_allowed_is_refused_by_name) {
    layer_t *layer = open_layer(DEFAULTS);
    const char *channel = new_channel(layer), *group = unique("group-");
    struct probe *done = probe_new("never taken");
    CHECK_OK(layer_group_add(layer, group, channel, ERR));
    for (size_t i = 0; i < WAYS * sizeof refused / sizeof refused[0]; i++) {
        const char *json = refused[i / WAYS].json, *says = refused[i / WAYS].says;
        layer_status_t status =
            STATUS(send_text((unsigned)(i % WAYS), layer, channel, group, json, done));
        CHECK(status == LAYER_INVALID, "%s: %s (%s)", json, layer_status_name(status),
              error_text());
        CHECK(says == NULL || strstr(error_text(), says) != NULL,
              "%s: the error does not name %s: %s", json, says, error_text());
    }
    CHECK_NOTHING_BEFORE_FENCE(layer, layer, channel);
    CHECK_STAT(layer, LAYER_STAT_SENDS_CONFIRMED, 1);
}

/* What sends without waiting keeps its place among the sends, and tells each outcome. */
CASE(json_sends_without_waiting_keep_their_order_and_tell_outcomes) {
    enum { COUNT = 200 };
    layer_t *layer = open_layer("remote_capacity", "1000", "local_capacity", "1000");
    const char *channel = new_channel(layer), *group = unique("group-");
    struct probe *done = probe_new("done"), *gone = probe_new("to nobody");
    CHECK_OK(layer_group_add(layer, group, channel, ERR));
    for (int64_t i = 0; i < COUNT; i++) {
        const char *json = text("{\"type\":\"test\",\"n\":%lld}", (long long)i);
        switch (i % 4) {
        case 0:
            CHECK_OK(send_json_async(layer, channel, json, done));
            break;
        case 1:
            CHECK_OK(send_async(layer, channel, i, done));
            break;
        case 2:
            CHECK_OK(group_send_json_async(layer, group, json, done));
            break;
        default:
            CHECK_OK(group_send_async(layer, group, i, done));
        }
    }
    CHECK_OK(send_json_async(layer, text("%s!gone", unique("channels_")), "{}", gone));
    CHECK_OK(group_send_json_async(layer, unique("group-"), "{}", done)); /* Of nobody. */
    for (int64_t i = 0; i < COUNT; i++) {
        CHECK_PULL(layer, channel, i);
    }
    WAIT_CALLS(done, COUNT + 1);
    CHECK_SEEN(done, outcomes[LAYER_OK], COUNT + 1);
    WAIT_CALLS(gone, 1);
    CHECK_SEEN(gone, outcomes[LAYER_NO_CHANNEL], 1);
}

CASE(json_sends_without_waiting_are_counted_in_max_in_flight) {
    layer_t *layer = open_layer("dispatch", "poll", "max_in_flight", "2");
    const char *channel = new_channel(layer), *group = unique("group-");
    struct probe *done = probe_new("done");
    CHECK_OK(send_json_async(layer, channel, "{}", done));
    CHECK_OK(group_send_json_async(layer, group, "{}", done));
    /* Nobody polls, so that the two hold their places. */
    CHECK_STATUS(LAYER_BUSY, send_json_async(layer, channel, "{}", done));
    CHECK_STATUS(LAYER_BUSY, group_send_json_async(layer, group, "{}", done));
    while (SEEN(done, calls) < 2) {
        CHECK_OK(layer_poll(layer, 0, 20000, NULL, ERR));
    }
    CHECK_SEEN(done, outcomes[LAYER_OK], 2);
    CHECK_OK(send_json_async(layer, channel, "{}", done));
    CHECK_OK(layer_poll(layer, 0, 20000, NULL, ERR));
    CHECK_SEEN(done, outcomes[LAYER_OK], 3);
}

static const char *nested_json(unsigned arrays) {
    char *json = case_alloc(2 * (size_t)arrays + 16);
    strcpy(json, "{\"deep\":");
    size_t length = strlen(json);
    memset(json + length, '[', arrays);
    memset(json + length + arrays, ']', arrays);
    json[length + 2 * arrays] = '}';
    return json;
}

CASE(json_nests_up_to_128_deep) {
    layer_t *layer = open_layer(DEFAULTS);
    const char *channel = new_channel(layer), *deep = nested_json(127), *json = NULL;
    CHECK_OK(layer_send_json(layer, channel, deep, ERR));
    layer_message_t *message = pull(layer, channel);
    CHECK_OK(layer_message_json(message, &json, ERR));
    CHECK(strcmp(json, deep) == 0, "it came as %s", json);
    layer_message_free(message);
    CHECK_STATUS(LAYER_INVALID, layer_send_json(layer, channel, nested_json(128), ERR));
    CHECK(strstr(error_text(), "deep") != NULL, "no word of 'deep': %s", error_text());
    CHECK_STATUS(LAYER_INVALID, layer_send_json(layer, channel, nested_json(1000000), ERR));
}

/* What MessagePack can hold and JSON cannot: only the view fails, and it names the place. */
CASE(only_the_json_view_of_such_a_message_fails) {
    static const struct {
        const char *name, *hex;
    } messages[] = {
        {"float 64 NaN", "81a5706c61636581a4686572659200cb7ff8000000000000"},
        {"float 32 infinity", "81a5706c61636581a4686572659200ca7f800000"},
        {"float 64 -infinity", "81a5706c61636581a4686572659200cbfff0000000000000"},
    };
    layer_t *layer = open_layer(DEFAULTS);
    const char *channel = new_channel(layer);
    for (size_t i = 0; i < sizeof messages / sizeof messages[0]; i++) {
        struct mp sent = {0};
        mp_hex(&sent, messages[i].hex);
        CHECK_OK(layer_send(layer, channel, sent.data, sent.length, ERR));
        layer_message_t *message = pull(layer, channel);
        const char *json = messages[i].name;
        for (unsigned again = 0; again < 2; again++) {
            CHECK_STATUS(LAYER_INVALID, layer_message_json(message, &json, ERR));
            CHECK(json == messages[i].name, "a view that failed wrote its output");
            const char *place = strstr(error_text(), "place");
            CHECK(place != NULL && strstr(place, "here") != NULL && strchr(place, '1') != NULL,
                  "%s: the error does not name the path place, here, 1: %s", messages[i].name,
                  error_text());
        }
        size_t length = 0;
        const uint8_t *data = layer_message_data(message, &length);
        CHECK(length == sent.length && memcmp(data, sent.data, length) == 0, "the bytes differ");
        layer_message_free(message);
        mp_free(&sent);
    }
}

CASE(bytes_become_boxed_strings_in_json) {
    layer_t *layer = open_layer(DEFAULTS);
    const char *channel = new_channel(layer), *json = NULL;
    struct mp sent = {0};
    mp_hex(&sent, "82a162c403ff00fe a16c91c400");
    CHECK_OK(layer_send(layer, channel, sent.data, sent.length, ERR));
    layer_message_t *message = pull(layer, channel);
    CHECK_OK(layer_message_json(message, &json, ERR));
    CHECK(strcmp(json, "{\"b\":\"" BOX "/wD+\",\"l\":[\"" BOX "\"]}") == 0, "it came as %s", json);
    CHECK_OK(layer_send_json(layer, channel, json, ERR)); /* And bytes again. */
    layer_message_free(message);
    message = pull(layer, channel);
    size_t length = 0;
    const uint8_t *data = layer_message_data(message, &length);
    CHECK(length == sent.length && memcmp(data, sent.data, length) == 0, "the bytes differ");
    layer_message_free(message);
    mp_free(&sent);
}
