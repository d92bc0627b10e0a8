/* A program that knows the library only as it was installed: a message and a broadcast. */

#include <channel_layer.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void check(layer_status_t status, layer_error_t *error, const char *what) {
    if (status != LAYER_OK) {
        fprintf(stderr, "%s: %s: %s\n", what, layer_status_name(status),
                layer_error_message(error));
        exit(1);
    }
}

static void expect(const char *what, const char *expected, const char *got) {
    if (got == NULL || strcmp(expected, got) != 0) {
        fprintf(stderr, "%s: expected '%s', got '%s'\n", what, expected, got ? got : "(null)");
        exit(1);
    }
}

static void expect_next(const layer_t *layer, const char *channel, const char *type,
                        const char *group) {
    layer_error_t *error = NULL;
    layer_message_t *message = NULL;
    check(layer_receive_next(layer, channel, 5000, &message, &error), error, "receive");
    expect("type", type, layer_message_type(message));
    expect("channel", channel, layer_message_channel(message));
    if (group != NULL) {
        expect("group", group, layer_message_group(message));
    }
    layer_message_free(message);
}

int main(void) {
    /* The library that runs is the one whose header was compiled. */
    expect("version", LAYER_VERSION, layer_version());
    if (layer_abi_version() != LAYER_ABI_VERSION) {
        fprintf(stderr, "the library's ABI is %u, the header's %u\n", layer_abi_version(),
                (unsigned)LAYER_ABI_VERSION);
        return 1;
    }

    layer_error_t *error = NULL;
    layer_config_t *config = layer_config_new();
    check(layer_config_set(config, "host", "memory://installed", &error), error, "host");
    layer_t *layer = NULL;
    check(layer_new(config, &layer, &error), error, "new");
    layer_config_free(config);

    char channel[LAYER_NAME_SIZE];
    check(layer_new_channel(layer, NULL, channel, sizeof channel, &error), error, "new channel");
    check(layer_send_json(layer, channel, "{\"type\": \"direct\"}", &error), error, "send");
    expect_next(layer, channel, "direct", NULL);
    check(layer_group_add(layer, "everyone", channel, &error), error, "group add");
    check(layer_group_send_json(layer, "everyone", "{\"type\": \"broadcast\"}", &error), error,
          "group send");
    expect_next(layer, channel, "broadcast", "everyone");

    check(layer_close(layer, 5000, &error), error, "close");
    layer_free(layer);
    puts("sent and received");
    return 0;
}
