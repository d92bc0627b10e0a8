/* A layer from its first option to its end: lifecycle [HOST] */

#include <semaphore.h>

#include "must.h"

/* [receive] */
static int32_t on_message(void *userdata, layer_status_t status, const layer_message_t *message) {
    const char *json;
    if (status != LAYER_OK) {
        return LAYER_STOP; /* the last call: there is no message */
    }
    if (layer_message_json(message, &json, NULL) == LAYER_OK) {
        printf("received %s\n", json);
    }
    sem_post(userdata);
    return LAYER_CONTINUE;
}
/* [end] */

int main(int argc, char **argv) {
    const char *host = argc > 1 ? argv[1] : "memory://lifecycle";
    sem_t received;
    sem_init(&received, 0, 0);

    /* [open] */
    layer_error_t *error = NULL;
    layer_t *layer = NULL;
    layer_config_t *config = layer_config_new();
    must(layer_config_set(config, "host", host, &error), &error, "set the host");
    must(layer_config_set(config, "timeout", "5", &error), &error, "set the timeout");
    must(layer_new(config, &layer, &error), &error, "open a layer");
    layer_config_free(config); /* the layer has a copy */
    must(layer_wait_ready(layer, 20000, &error), &error, "connect");
    /* [end] */

    /* [use] */
    char channel[LAYER_NAME_SIZE];
    uint64_t receiver = 0;
    must(layer_new_channel(layer, "web.", channel, sizeof channel, &error), &error, "name");
    must(layer_receive(layer, channel, on_message, &received, NULL, &receiver, &error), &error,
         "receive");
    must(layer_group_add(layer, "news", channel, &error), &error, "join the group");
    must(layer_send_json(layer, channel, "{\"type\": \"note\", \"text\": \"to you\"}", &error),
         &error, "send to the channel");
    must(layer_group_send_json(layer, "news", "{\"type\": \"note\", \"text\": \"to all\"}", &error),
         &error, "send to the group");
    /* [end] */

    sem_wait(&received);
    sem_wait(&received);

    /* [end of a client] */
    must(layer_channel_discard(layer, channel, &error), &error, "give the channel up");
    /* [end] */

    /* [close] */
    layer_status_t closed = layer_close(layer, 5000, &error);
    if (closed != LAYER_OK) { /* it is closed all the same */
        fprintf(stderr, "closing: %s\n", layer_error_message(error));
        layer_error_free(error);
    }
    layer_free(layer); /* the last call on this handle */
    /* [end] */
    sem_destroy(&received);
    return closed == LAYER_OK ? 0 : 1;
}
