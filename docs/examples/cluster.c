/* A layer with several hosts, and what it tells of its connections: cluster HOST,HOST... */

#include <inttypes.h>

#include "must.h"

/* [state] */
/* Where the generation has grown, messages may have been missed: the old queue is gone. */
static void on_state(void *userdata, layer_state_t state, uint64_t generation) {
    uint64_t *last = userdata;
    if (state == LAYER_STATE_READY && generation > *last) {
        if (*last > 0) {
            printf("connected again: fetch what may have been missed\n");
        }
        *last = generation;
    }
    printf("state %d, generation %" PRIu64 "\n", (int)state, generation);
}

/* A refused password and a host that does not answer are both told here. */
static void on_log(void *userdata, layer_log_level_t level, const char *id, const char *target,
                   const char *message) {
    (void)userdata;
    (void)target;
    if (level <= LAYER_LOG_WARN) {
        fprintf(stderr, "%s: %s\n", id, message);
    }
}
/* [end] */

int main(int argc, char **argv) {
    layer_error_t *error = NULL;
    layer_t *layer = NULL;
    uint64_t generation = 0;
    if (argc != 2) {
        fprintf(stderr, "usage: %s HOST,HOST...\n", argv[0]);
        return 2;
    }
    /* [hosts] */
    const char *hosts = argv[1]; /* "amqp://u:p@one/asgi,amqp://u:p@two/asgi": whole URLs */
    layer_config_t *config = layer_config_new();
    must(layer_config_set(config, "host", hosts, &error), &error, "set the hosts");
    must(layer_config_set(config, "connect_timeout", "3", &error), &error, "set the timeout");
    must(layer_config_set(config, "heartbeat", "5", &error), &error, "set the heartbeat");
    must(layer_config_on_state(config, on_state, &generation, NULL, &error), &error, "watch");
    must(layer_config_on_log(config, on_log, NULL, NULL, &error), &error, "log");
    must(layer_new(config, &layer, &error), &error, "open a layer");
    layer_config_free(config);
    must(layer_wait_ready(layer, 20000, &error), &error, "connect");
    /* [end] */
    char channel[LAYER_NAME_SIZE];
    layer_message_t *message = NULL;
    must(layer_new_channel(layer, NULL, channel, sizeof channel, &error), &error, "name");
    must(layer_send_json(layer, channel, "{\"type\": \"hello\"}", &error), &error, "send");
    must(layer_receive_next(layer, channel, 20000, &message, &error), &error, "receive");
    layer_message_free(message);
    layer_free(layer);
    return generation == 1 ? 0 : 1;
}
