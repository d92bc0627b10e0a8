/* The member of the fleet in C; tests/fleet/README.md says what it does. */
#include "channel_layer.h"
#include "msgpack.h"

#include <pthread.h>
#include <stdio.h>

#define TEXT                                                                                       \
    "Gr\xc3\xbc\xc3\x9f"                                                                           \
    "e, \xe4\xb8\x96\xe7\x95\x8c, \xf0\x9f\x98\x80"

static pthread_mutex_t output = PTHREAD_MUTEX_INITIALIZER;

static void say(const char *word, const char *name, const char *what) {
    pthread_mutex_lock(&output);
    printf("%s%s%s%s%s\n", word, name == NULL ? "" : " ", name == NULL ? "" : name,
           what == NULL ? "" : ": ", what == NULL ? "" : what);
    fflush(stdout);
    pthread_mutex_unlock(&output);
}

static void check(layer_status_t status, layer_error_t *error, const char *call) {
    if (status != LAYER_OK) {
        fprintf(stderr, "member.c: %s: %s: %s\n", call, layer_status_name(status),
                layer_error_message(error));
        exit(1);
    }
}

static void put_double(struct mp *mp, double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    mp_number(mp, 0xcb, bits, 8);
}

static void put_message(struct mp *mp, const char *from) {
    mp_map(mp, 12);
    mp_str(mp, "type"), mp_str(mp, "fleet.message");
    mp_str(mp, "from"), mp_str(mp, from);
    mp_str(mp, "nothing"), mp_byte(mp, 0xc0);
    mp_str(mp, "yes"), mp_byte(mp, 0xc3);
    mp_str(mp, "no"), mp_byte(mp, 0xc2);
    mp_str(mp, "least"), mp_int(mp, INT64_MIN);
    mp_str(mp, "most"), mp_int(mp, INT64_MAX);
    mp_str(mp, "tenth"), put_double(mp, 0.1);
    mp_str(mp, "whole"), put_double(mp, 1.0);
    mp_str(mp, "text"), mp_str(mp, TEXT);
    mp_str(mp, "bytes"), mp_hex(mp, "c404 00fffe80");
    mp_str(mp, "nested"), mp_array(mp, 3), mp_int(mp, 1);
    mp_array(mp, 3), put_double(mp, 2.5), mp_byte(mp, 0xc0), mp_hex(mp, "c401 07");
    mp_map(mp, 1), mp_str(mp, "cl\xc3\xa9"), mp_map(mp, 1), mp_str(mp, ""), mp_byte(mp, 0xff);
}

/* Whether two values are the same, however long their encoders made the heads of them; moves both
 * behind it. Maps of this message have one key, but for the outermost. */
static bool same(const uint8_t **one, const uint8_t *one_end, const uint8_t **other,
                 const uint8_t *other_end) {
    struct mp_head a = mp_read_head(*one, one_end), b = mp_read_head(*other, other_end);
    int64_t left, right;
    if (a.kind == 0 || a.kind != b.kind || a.values != b.values) {
        return false;
    }
    if (a.kind == 'i') {
        if (!mp_read_int(*one, one_end, &left) || !mp_read_int(*other, other_end, &right) ||
            left != right) {
            return false;
        }
    } else if (a.bytes != b.bytes || (a.kind == '.' && **one != **other) ||
               memcmp(*one + a.head, *other + b.head, a.bytes) != 0) {
        return false;
    }
    *one += a.head + a.bytes;
    *other += b.head + b.bytes;
    for (uint64_t i = 0; i < a.values; i++) {
        if (!same(one, one_end, other, other_end)) {
            return false;
        }
    }
    return true;
}

/* The first key whose value is not as in `expected`; NULL if there is none. */
static const char *fault_of(const uint8_t *data, size_t length, const struct mp *expected) {
    static const char *const keys[] = {"type", "from",  "nothing", "yes",  "no",    "least",
                                       "most", "tenth", "whole",   "text", "bytes", "nested"};
    size_t count = sizeof keys / sizeof keys[0];
    struct mp_head map = mp_read_head(data, data + length);
    if (map.kind != 'm' || map.values != 2 * count) {
        return "the number of keys";
    }
    for (size_t i = 0; i < count; i++) {
        const uint8_t *is = mp_find(data, length, keys[i]);
        const uint8_t *should = mp_find(expected->data, expected->length, keys[i]);
        if (is == NULL || !same(&is, data + length, &should, expected->data + expected->length)) {
            return keys[i];
        }
    }
    return NULL;
}

static int32_t on_message(void *userdata, layer_status_t status, const layer_message_t *message) {
    (void)userdata;
    if (status != LAYER_OK) {
        return LAYER_STOP;
    }
    size_t length;
    const uint8_t *data = layer_message_data(message, &length);
    char from[64] = "nobody";
    const uint8_t *sender = mp_find(data, length, "from");
    struct mp_head head = mp_read_head(sender, data + length);
    if (head.kind == 's' && head.bytes < sizeof from) {
        memcpy(from, sender + head.head, head.bytes);
        from[head.bytes] = '\0';
    }
    struct mp expected = {0};
    put_message(&expected, from);
    const char *fault = fault_of(data, length, &expected);
    say(fault == NULL ? "got" : "wrong", from, fault);
    mp_free(&expected);
    return LAYER_CONTINUE;
}

int main(int argc, char **argv) {
    if (argc != 4) {
        fputs("usage: member HOST GROUP NAME\n", stderr);
        return 2;
    }
    layer_error_t *error = NULL;
    layer_config_t *config = layer_config_new();
    layer_status_t status = layer_config_set(config, "host", argv[1], &error);
    check(status, error, "layer_config_set");
    layer_t *layer = NULL;
    status = layer_new(config, &layer, &error);
    check(status, error, "layer_new");
    layer_config_free(config);
    char channel[LAYER_NAME_SIZE];
    status = layer_new_channel(layer, "fleet.", channel, sizeof channel, &error);
    check(status, error, "layer_new_channel");
    status = layer_receive(layer, channel, on_message, NULL, NULL, NULL, &error);
    check(status, error, "layer_receive");
    status = layer_group_add(layer, argv[2], channel, &error);
    check(status, error, "layer_group_add");
    say("joined", NULL, NULL);

    char line[64];
    while (fgets(line, sizeof line, stdin) != NULL) {
        struct mp message = {0};
        put_message(&message, argv[3]);
        status = layer_group_send(layer, argv[2], message.data, message.length, &error);
        if (status == LAYER_OK) {
            say("sent", NULL, NULL);
        } else {
            say("failed", layer_error_message(error), NULL);
            layer_error_free(error);
            error = NULL;
        }
        mp_free(&message);
    }
    status = layer_group_discard(layer, argv[2], channel, &error);
    check(status, error, "layer_group_discard");
    status = layer_close(layer, 10000, &error);
    check(status, error, "layer_close");
    layer_free(layer);
    return 0;
}
