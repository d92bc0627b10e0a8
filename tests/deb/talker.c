/*
 * Sends each line of standard input to itself through the broker and prints what has arrived, so
 * that a test can see it work before and after something: talker HOST
 */

#include <channel_layer.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void check(layer_status_t status, layer_error_t *error) {
    if (status != LAYER_OK) {
        fprintf(stderr, "%s: %s\n", layer_status_name(status), layer_error_message(error));
        exit(1);
    }
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "talker HOST\n");
        return 2;
    }
    layer_error_t *error = NULL;
    layer_config_t *config = layer_config_new();
    check(layer_config_set(config, "host", argv[1], &error), error);
    layer_t *layer = NULL;
    check(layer_new(config, &layer, &error), error);
    layer_config_free(config);
    char channel[LAYER_NAME_SIZE];
    check(layer_new_channel(layer, NULL, channel, sizeof channel, &error), error);
    check(layer_group_add(layer, "talk", channel, &error), error);

    char line[100], json[200];
    while (fgets(line, sizeof line, stdin) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        snprintf(json, sizeof json, "{\"type\": \"%s\"}", line);
        check(layer_group_send_json(layer, "talk", json, &error), error);
        layer_message_t *message = NULL;
        check(layer_receive_next(layer, channel, 10000, &message, &error), error);
        puts(layer_message_type(message));
        fflush(stdout);
        layer_message_free(message);
    }
    layer_free(layer);
    return 0;
}
