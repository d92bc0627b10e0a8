/* The C side of a group that is shared with a Django site: game HOST
 *
 * Joins the group "arena", says so there, and ends when a word from the site has come. */

#include <string.h>

#include "must.h"

int main(int argc, char **argv) {
    layer_error_t *error = NULL;
    layer_t *layer = NULL;
    if (argc != 2) {
        fprintf(stderr, "usage: %s HOST\n", argv[0]);
        return 2;
    }
    layer_config_t *config = layer_config_new();
    must(layer_config_set(config, "host", argv[1], &error), &error, "set the host");
    must(layer_new(config, &layer, &error), &error, "open a layer");
    layer_config_free(config);

    /* [share] */
    char channel[LAYER_NAME_SIZE], said[256];
    layer_message_t *message = NULL;
    must(layer_new_channel(layer, NULL, channel, sizeof channel, &error), &error, "name");
    must(layer_group_add(layer, "arena", channel, &error), &error, "join");
    /* "type" picks the consumer's method: a dot becomes an underscore. */
    snprintf(said, sizeof said, "{\"type\": \"player.joined\", \"reply_to\": \"%s\"}", channel);
    must(layer_group_send_json(layer, "arena", said, &error), &error, "tell the group");
    for (;;) {
        const char *json, *type;
        must(layer_receive_next(layer, channel, 20000, &message, &error), &error, "receive");
        must(layer_message_json(message, &json, &error), &error, "read");
        type = layer_message_type(message);
        printf("%s %s\n", layer_message_group(message) ? "to all:" : "to me:", json);
        if (type != NULL && strcmp(type, "site.welcome") == 0) {
            break; /* what the site sent to our channel alone */
        }
        layer_message_free(message);
    }
    /* [end] */
    layer_message_free(message);
    layer_free(layer);
    return 0;
}
