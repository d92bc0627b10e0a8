/* A layer over TLS: tls HOST CA_FILE [CERTIFICATE KEY] */

#include "must.h"

int main(int argc, char **argv) {
    layer_error_t *error = NULL;
    layer_t *layer = NULL;
    if (argc != 3 && argc != 5) {
        fprintf(stderr, "usage: %s HOST CA_FILE [CERTIFICATE KEY]\n", argv[0]);
        return 2;
    }
    const char *host = argv[1], *ca_file = argv[2];
    const char *certificate = argc == 5 ? argv[3] : NULL, *key = argc == 5 ? argv[4] : NULL;

    /* [options] */
    layer_config_t *config = layer_config_new();
    must(layer_config_set(config, "host", host, &error), &error, "set the host");
    must(layer_config_set(config, "tls_ca_file", ca_file, &error), &error, "set tls_ca_file");
    if (certificate != NULL) { /* where the broker asks for one */
        must(layer_config_set(config, "tls_cert_file", certificate, &error), &error,
             "set tls_cert_file");
        must(layer_config_set(config, "tls_key_file", key, &error), &error, "set tls_key_file");
    }
    must(layer_new(config, &layer, &error), &error, "open a layer"); /* reads the files */
    layer_config_free(config);
    /* [end] */

    /* [ready] */
    layer_status_t status = layer_wait_ready(layer, 20000, &error);
    if (status == LAYER_REFUSED) { /* the message names the host, and what is wrong */
        fprintf(stderr, "%s\n", layer_error_message(error));
        layer_error_free(error);
        layer_free(layer);
        return 3;
    }
    must(status, &error, "connect");
    /* [end] */

    char channel[LAYER_NAME_SIZE];
    layer_message_t *message = NULL;
    must(layer_new_channel(layer, NULL, channel, sizeof channel, &error), &error, "name");
    must(layer_send_json(layer, channel, "{\"type\": \"secret\"}", &error), &error, "send");
    must(layer_receive_next(layer, channel, 20000, &message, &error), &error, "receive");
    printf("received a %s\n", layer_message_type(message));
    layer_message_free(message);
    layer_free(layer);
    return 0;
}
