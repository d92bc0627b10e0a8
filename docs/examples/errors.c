/* What a server does with the outcome of a send: errors [HOST] */

#include <string.h>

#include "must.h"

/* [decide] */
typedef enum { SENT, LOST, UNKNOWN, RETRY_LATER, GIVE_UP } verdict_t;

/* What became of a message, as far as anybody can know. */
static verdict_t judge(layer_status_t status) {
    switch (status) {
    case LAYER_OK:
        return SENT;
    case LAYER_FULL:       /* more at once than a queue takes, or the queue is failing */
    case LAYER_NO_CHANNEL: /* the other process has ended, or is reconnecting */
        return LOST;
    case LAYER_TIMEOUT: /* handed over: sending it again may deliver it twice */
    case LAYER_UNCONFIRMED:
        return UNKNOWN;
    case LAYER_BUSY: /* certainly not sent: sending it again is safe */
    case LAYER_DISCONNECTED:
    case LAYER_REFUSED:
        return RETRY_LATER;
    default: /* wrong arguments, or the layer is closed: the program must change */
        return GIVE_UP;
    }
}
/* [end] */

int main(int argc, char **argv) {
    layer_error_t *error = NULL;
    layer_t *layer = NULL;
    layer_config_t *config = layer_config_new();
    must(layer_config_set(config, "host", argc > 1 ? argv[1] : "memory://errors", &error), &error,
         "set the host");

    /* [message] */
    layer_status_t status = layer_config_set(config, "prefetch_count", "many", &error);
    if (status != LAYER_OK) {
        fprintf(stderr, "%s: %s\n", layer_status_name(status), layer_error_message(error));
        layer_error_free(error);
        error = NULL;
    }
    /* [end] */
    if (status != LAYER_INVALID) {
        return 1;
    }

    /* Two messages on the broker and one in memory, then the receiver's queue is full. */
    must(layer_config_set(config, "remote_capacity", "2", &error), &error, "set the capacity");
    must(layer_config_set(config, "local_capacity", "1", &error), &error, "set the capacity");
    must(layer_new(config, &layer, &error), &error, "open a layer");
    layer_config_free(config);
    must(layer_wait_ready(layer, 20000, &error), &error, "connect");
    char channel[LAYER_NAME_SIZE];
    must(layer_new_channel(layer, NULL, channel, sizeof channel, &error), &error, "name");

    int sent = 0;
    verdict_t verdict = SENT;
    while (verdict == SENT && sent < 100) {
        /* [send] */
        status = layer_send_json(layer, channel, "{\"type\": \"tick\"}", &error);
        verdict = judge(status);
        if (verdict != SENT) {
            fprintf(stderr, "not sent: %s\n", layer_error_message(error));
            layer_error_free(error);
            error = NULL;
        }
        /* [end] */
        sent += verdict == SENT;
    }
    printf("%d sent, then %s\n", sent, layer_status_name(status));
    layer_free(layer);
    return status == LAYER_FULL && verdict == LOST ? 0 : 1;
}
