/* MessagePack values: what passes, bit by bit, and what is refused. */
#include "support.h"

#include <strings.h>
#include <sys/mman.h>
#include <unistd.h>

/* A value: hexadecimal digits, and then `fill` repeated `count` times. */
struct value {
    const char *name;
    const char *hex;
    unsigned fill;
    uint32_t count;
};

static const struct value allowed[] = {
    {"nil", "c0", 0, 0},
    {"false", "c2", 0, 0},
    {"true", "c3", 0, 0},
    {"positive fixint 0", "00", 0, 0},
    {"positive fixint 127", "7f", 0, 0},
    {"negative fixint -1", "ff", 0, 0},
    {"negative fixint -32", "e0", 0, 0},
    {"uint 8", "cc80", 0, 0},
    {"uint 8, longer than needed", "cc05", 0, 0},
    {"uint 16", "cdffff", 0, 0},
    {"uint 32", "ceffffffff", 0, 0},
    {"uint 64, largest with a sign", "cf7fffffffffffffff", 0, 0},
    {"uint 64, least without a sign", "cf8000000000000000", 0, 0},
    {"uint 64, largest", "cfffffffffffffffff", 0, 0},
    {"uint 64, longer than needed", "cf0000000000000001", 0, 0},
    {"int 8", "d080", 0, 0},
    {"int 8, longer than needed", "d001", 0, 0},
    {"int 16", "d18000", 0, 0},
    {"int 32", "d280000000", 0, 0},
    {"int 64, smallest", "d38000000000000000", 0, 0},
    {"int 64, largest", "d37fffffffffffffff", 0, 0},
    {"int 64, longer than needed", "d3ffffffffffffffff", 0, 0},
    {"float 32", "ca3fc00000", 0, 0},
    {"float 32 NaN with a payload", "ca7fc00123", 0, 0},
    {"float 64", "cb3ff199999999999a", 0, 0},
    {"float 64 -0.0", "cb8000000000000000", 0, 0},
    {"float 64 infinity", "cb7ff0000000000000", 0, 0},
    {"float 64 -infinity", "cbfff0000000000000", 0, 0},
    {"float 64 NaN with a payload", "cb7ff8000000000abc", 0, 0},
    {"float 64 denormal", "cb0000000000000001", 0, 0},
    {"fixstr, empty", "a0", 0, 0},
    {"fixstr of 31", "bf", 'x', 31},
    {"str 8", "d920", 'x', 32},
    {"str 8, empty", "d900", 0, 0},
    {"str 16", "da0100", 'x', 256},
    {"str 32", "db00010000", 'x', 65536},
    {"string with NULs", "a3610062", 0, 0},
    {"string of 1 to 4 byte characters", "aa 41 c3a9 e282ac f09f9880", 0, 0},
    {"string of U+FFFF", "a3efbfbf", 0, 0},
    {"bin 8, empty", "c400", 0, 0},
    {"bin 8", "c4ff", 0xff, 255},
    {"bin 16", "c50100", 0xfe, 256},
    {"bin 32", "c600010000", 0x80, 65536},
    {"fixarray, empty", "90", 0, 0},
    {"fixarray of 15", "9f", 0xc0, 15},
    {"array 16", "dc0010", 0x01, 16},
    {"array 16, longer than needed", "dc0001c0", 0, 0},
    {"array 32", "dd00010000", 0xc3, 65536},
    {"fixmap, empty", "80", 0, 0},
    {"fixmap with an empty key", "81a0c0", 0, 0},
    {"map 16, longer than needed", "de0001a16bc0", 0, 0},
    {"map 32, longer than needed", "df00000001a16bc0", 0, 0},
    {"map with a key as str 8", "81d9016bc0", 0, 0},
    {"map with a key as str 32", "81db000000016bc0", 0, 0},
    {"nested", "82a16194c0c2c4010081a0cb400921fb54442d18a16290", 0, 0},
};

enum { ALLOWED = sizeof allowed / sizeof allowed[0] };

static void put(struct mp *mp, const struct value *value) {
    mp_hex(mp, value->hex);
    mp_fill(mp, value->fill, value->count);
}

/* Sends a message to a channel and to a group; what comes must be the same, bit by bit. */
static void check_round_trip(layer_t *layer, const char *channel, const char *group,
                             const char *name, const struct mp *message) {
    for (unsigned way = 0; way < 2; way++) {
        layer_status_t status =
            STATUS(way == 0 ? layer_send(layer, channel, message->data, message->length, ERR)
                            : layer_group_send(layer, group, message->data, message->length, ERR));
        CHECK(status == LAYER_OK, "%s: %s (%s)", name, layer_status_name(status), error_text());
        layer_message_t *received = pull(layer, channel);
        /* The head of the whole map may be longer than that of what was sent; else, bit by bit. */
        size_t length = 0;
        const uint8_t *data = layer_message_data(received, &length);
        struct mp_head sent = mp_read_head(message->data, message->data + message->length),
                       came = mp_read_head(data, data + length);
        CHECK(came.kind == 'm' && came.values == sent.values, "%s: came as '%c' of %llu", name,
              came.kind, (unsigned long long)came.values);
        CHECK(length - came.head == message->length - sent.head, "%s: %zu bytes, not %zu", name,
              length - came.head, message->length - sent.head);
        for (size_t i = 0; i < length - came.head; i++) {
            CHECK(data[came.head + i] == message->data[sent.head + i],
                  "%s: byte %zu of %zu is %02x, not %02x", name, i, length - came.head,
                  data[came.head + i], message->data[sent.head + i]);
        }
        layer_message_free(received);
    }
}

CASE(every_allowed_type_round_trips_bit_by_bit) {
    layer_t *layer = open_layer(DEFAULTS);
    const char *channel = new_channel(layer), *group = unique("group-");
    CHECK_OK(layer_group_add(layer, group, channel, ERR));
    struct mp all = {0};
    mp_map(&all, 1);
    mp_str(&all, "all");
    mp_array(&all, ALLOWED);
    for (size_t i = 0; i < ALLOWED; i++) {
        struct mp message = {0};
        mp_map(&message, 2);
        mp_str(&message, "v");
        put(&message, &allowed[i]);
        mp_str(&message, "after");
        mp_int(&message, 1);
        check_round_trip(layer, channel, group, allowed[i].name, &message);
        mp_free(&message);
        put(&all, &allowed[i]);
    }
    check_round_trip(layer, channel, group, "all in one", &all);
    mp_free(&all);
}

CASE(maps_of_every_size_round_trip) {
    layer_t *layer = open_layer(DEFAULTS);
    const char *channel = new_channel(layer), *group = unique("group-");
    CHECK_OK(layer_group_add(layer, group, channel, ERR));
    static const uint32_t sizes[] = {0, 1, 14, 15, 16, 17, 300};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct mp message = {0};
        mp_map(&message, sizes[i]); /* With the recipient, 15 pairs no longer fit a fixmap. */
        for (uint32_t pair = 0; pair < sizes[i]; pair++) {
            mp_str(&message, text("key %u", pair));
            mp_int(&message, pair);
        }
        check_round_trip(layer, channel, group, text("map of %u", sizes[i]), &message);
        mp_free(&message);
    }
}

static void nest(struct mp *message, unsigned arrays) {
    mp_map(message, 1);
    mp_str(message, "v");
    mp_fill(message, 0x91, arrays);
    mp_byte(message, 0xc0);
}

CASE(nesting_passes_up_to_128_deep) {
    layer_t *layer = open_layer(DEFAULTS);
    const char *channel = new_channel(layer), *group = unique("group-");
    CHECK_OK(layer_group_add(layer, group, channel, ERR));
    struct mp deep = {0}, deeper = {0}, bottomless = {0};
    nest(&deep, 127); /* The map is the first level. */
    check_round_trip(layer, channel, group, "128 deep", &deep);
    nest(&deeper, 128);
    CHECK_STATUS(LAYER_INVALID, layer_send(layer, channel, deeper.data, deeper.length, ERR));
    CHECK(strstr(error_text(), "128") != NULL, "the error names no limit: %s", error_text());
    nest(&bottomless, 1000000); /* And it costs no stack. */
    CHECK_STATUS(LAYER_INVALID,
                 layer_send(layer, channel, bottomless.data, bottomless.length, ERR));
    mp_free(&deep);
    mp_free(&deeper);
    mp_free(&bottomless);
}

/* A whole message, and words of which its error must hold one, divided by '|'. */
static const struct {
    const char *name, *hex, *says;
} refused[] = {
    {"nothing", "", "empty|map"},
    {"nil", "c0", "nil|map"},
    {"an array", "90", "array|map"},
    {"an integer", "05", "int|map"},
    {"a string", "a161", "str|map"},
    {"bytes", "c40161", "bin|bytes|map"},
    {"trailing byte", "80c0", "trailing|after|end"},
    {"two maps", "8080", "trailing|after|end"},
    {"a map cut in its head", "de00", "end|incomplete|cut|truncated"},
    {"a map cut before a key", "81", "end|incomplete|cut|truncated"},
    {"a map cut before a value", "81a176", "end|incomplete|cut|truncated"},
    {"a string cut short", "81a176a56162", "end|incomplete|cut|truncated"},
    {"bytes cut short", "81a176c40361", "end|incomplete|cut|truncated"},
    {"an integer cut short", "81a176cd01", "end|incomplete|cut|truncated"},
    {"an array longer than its message", "81a176ddffffffff", "end|incomplete|cut|truncated"},
    {"a map longer than its message", "dfffffffff", "end|incomplete|cut|truncated|length"},
    {"bytes longer than their message", "81a176c6ffffffff", "end|incomplete|cut|truncated"},
    {"fixext 1", "81a176d40100", "ext"},
    {"fixext 2", "81a176d5010000", "ext"},
    {"fixext 4, a timestamp", "81a176d6ff00000000", "ext|timestamp"},
    {"fixext 8", "81a176d7010000000000000000", "ext"},
    {"fixext 16", "81a176d80100000000000000000000000000000000", "ext"},
    {"ext 8", "81a176c7000100", "ext"},
    {"ext 16", "81a176c8000001", "ext"},
    {"ext 32", "81a176c90000000001", "ext"},
    {"ext in an array in a map", "81a17681a16191d40100", "ext"},
    {"the marker that is never used", "81a176c1", "c1|reserved|never"},
    {"an integer as key", "8105c0", "key"},
    {"the largest integer as key", "81cfffffffffffffffffc0", "key"},
    {"nil as key", "81c0c0", "key"},
    {"bytes as key", "81c40176c0", "key"},
    {"an integer as key of an inner map", "81a1768105c0", "key"},
    {"bytes as key in an array", "81a1769181c40161c0", "key"},
    {"a string that is not UTF-8", "81a176a2c328", "utf"},
    {"a string with a surrogate", "81a176a3eda080", "utf"},
    {"a string with an overlong form", "81a176a2c080", "utf"},
    {"a key that is not UTF-8", "81a1ffc0", "utf"},
    {"the reserved key of a channel", "81b0 5f5f617367695f6368616e6e656c5f5f a161",
     "__asgi_channel__"},
    {"the reserved key of a group", "81ae 5f5f617367695f67726f75705f5f a161", "__asgi_group__"},
    {"a reserved key as str 8", "81d90e 5f5f617367695f67726f75705f5f a161", "__asgi_group__"},
    {"a reserved key after another", "82a176c0b0 5f5f617367695f6368616e6e656c5f5f a161",
     "__asgi_channel__"},
};

static bool says_one_of(const char *said, const char *words) {
    char word[64];
    while (*words != '\0') {
        size_t length = strcspn(words, "|");
        snprintf(word, sizeof word, "%.*s", (int)length, words);
        if (strcasestr(said, word) != NULL) {
            return true;
        }
        words += length + (words[length] == '|');
    }
    return false;
}

CASE(what_is_not_allowed_is_refused_by_name) {
    layer_t *layer = open_layer(DEFAULTS);
    const char *channel = new_channel(layer), *group = unique("group-");
    CHECK_OK(layer_group_add(layer, group, channel, ERR));
    struct probe *done = probe_new("done");
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        struct mp message = {0};
        mp_hex(&message, refused[i].hex);
        for (unsigned way = 0; way < 4; way++) {
            layer_status_t status = STATUS(
                way == 0   ? layer_send(layer, channel, message.data, message.length, ERR)
                : way == 1 ? layer_group_send(layer, group, message.data, message.length, ERR)
                : way == 2 ? probe_given(done, layer_send_async(layer, channel, message.data,
                                                                message.length, probe_done, done,
                                                                probe_destroy, ERR))
                           : probe_given(done, layer_group_send_async(layer, group, message.data,
                                                                      message.length, probe_done,
                                                                      done, probe_destroy, ERR)));
            CHECK(status == LAYER_INVALID, "%s, way %u: %s (%s)", refused[i].name, way,
                  layer_status_name(status), error_text());
            CHECK(says_one_of(error_text(), refused[i].says), "%s: the error names none of %s: %s",
                  refused[i].name, refused[i].says, error_text());
        }
        mp_free(&message);
    }
    CHECK_NOTHING_BEFORE_FENCE(layer, layer, channel);
    CHECK_STAT(layer, LAYER_STAT_SENDS_CONFIRMED, 1);
}

CASE(an_inner_reserved_key_is_allowed) {
    layer_t *layer = open_layer(DEFAULTS);
    const char *channel = new_channel(layer), *group = unique("group-");
    CHECK_OK(layer_group_add(layer, group, channel, ERR));
    struct mp message = {0};
    mp_hex(&message, "81a17681ae 5f5f617367695f67726f75705f5f a161");
    check_round_trip(layer, channel, group, "an inner reserved key", &message);
    mp_free(&message);
}

/* All that a call borrows lies in memory that cannot be written. */
CASE(the_callers_bytes_are_never_changed) {
    layer_t *layer = open_layer(DEFAULTS);
    const char *channel = new_channel(layer), *group = unique("group-");
    size_t size = 4 * (size_t)sysconf(_SC_PAGESIZE);
    char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(memory != MAP_FAILED, "mmap failed");
    char *my_channel = memory, *my_group = memory + 200, *json = memory + 400, *message = json + 64;
    strcpy(my_channel, channel);
    strcpy(my_group, group);
    strcpy(json, "{\"type\":\"test\",\"n\":3,\"b\":\"\xef\xbf\xbfQUJD\"}");
    struct mp numbered = padded_message(1, 3000);
    memcpy(message, numbered.data, numbered.length);
    const uint8_t *bytes = (const uint8_t *)message;
    CHECK(mprotect(memory, size, PROT_READ) == 0, "mprotect failed");

    struct probe *probe = probe_new("receiver"), *done = probe_new("done");
    CHECK_OK(receive(layer, my_channel, probe, NULL));
    CHECK_OK(layer_group_add(layer, my_group, my_channel, ERR));
    CHECK_OK(group_add_async(layer, my_group, my_channel, done));
    CHECK_OK(layer_send(layer, my_channel, bytes, numbered.length, ERR));
    CHECK_OK(layer_group_send(layer, my_group, bytes, numbered.length, ERR));
    CHECK_OK(layer_send_json(layer, my_channel, json, ERR));
    CHECK_OK(layer_group_send_json(layer, my_group, json, ERR));
    CHECK_OK(probe_given(done, layer_send_async(layer, my_channel, bytes, numbered.length,
                                                probe_done, done, probe_destroy, ERR)));
    CHECK_OK(probe_given(done, layer_group_send_async(layer, my_group, bytes, numbered.length,
                                                      probe_done, done, probe_destroy, ERR)));
    CHECK_OK(send_json_async(layer, my_channel, json, done));
    CHECK_OK(group_send_json_async(layer, my_group, json, done));
    WAIT_MESSAGES(probe, 8);
    WAIT_CALLS(done, 5);
    CHECK_OK(layer_group_discard(layer, my_group, my_channel, ERR));
    CHECK_OK(layer_channel_discard(layer, my_channel, ERR));
    CHECK(munmap(memory, size) == 0, "munmap failed");
    /* What was borrowed is gone, and the messages are not. */
    CHECK(probe_number(probe, 0) == 1 && probe_number(probe, 5) == 1, "%lld and %lld",
          (long long)probe_number(probe, 0), (long long)probe_number(probe, 5));
    CHECK(probe_number(probe, 7) == 3, "%lld", (long long)probe_number(probe, 7));
    CHECK(strcmp(layer_message_channel(SEEN(probe, messages[0])), channel) == 0, "channel %s",
          layer_message_channel(SEEN(probe, messages[0])));
    mp_free(&numbered);
}

CASE(the_type_of_a_message_is_a_string_or_nothing) {
    static const struct {
        const char *hex, *type;
    } messages[] = {
        {"81a474797065a3612e62", "a.b"},
        {"81a474797065a0", ""},
        {"80", NULL},
        {"81a4747970650a", NULL},
        {"81a474797065c40161", NULL},
        {"81a474797065a3610062", NULL},
        {"82a161c0d90474797065a161", "a"},
    };
    layer_t *layer = open_layer(DEFAULTS);
    const char *channel = new_channel(layer);
    for (size_t i = 0; i < sizeof messages / sizeof messages[0]; i++) {
        struct mp message = {0};
        mp_hex(&message, messages[i].hex);
        CHECK_OK(layer_send(layer, channel, message.data, message.length, ERR));
        mp_free(&message);
        layer_message_t *received = pull(layer, channel);
        const char *type = layer_message_type(received);
        CHECK((type == NULL) == (messages[i].type == NULL) &&
                  (type == NULL || strcmp(type, messages[i].type) == 0),
              "%s: type %s", messages[i].hex, type == NULL ? "NULL" : type);
        layer_message_free(received);
    }
}
