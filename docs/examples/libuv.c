/* A layer in a libuv loop: libuv [HOST] */

#define _POSIX_C_SOURCE 200809L /* uv.h wants more than C11 */

#include <stdbool.h>
#include <string.h>

#include <uv.h>

#include "must.h"

#define SILENCE_MS 20000

typedef struct {
    layer_t *layer;
    uv_poll_t readable;
    uv_timer_t patience;
    char channel[LAYER_NAME_SIZE];
    bool received;
} server_t;

static void stop(server_t *server) {
    uv_close((uv_handle_t *)&server->patience, NULL);
    uv_close((uv_handle_t *)&server->readable, NULL); /* before layer_free closes the descriptor */
}

/* [callbacks] */
/* Runs in layer_poll, on the thread of the loop. */
static int32_t on_message(void *userdata, layer_status_t status, const layer_message_t *message) {
    server_t *server = userdata;
    if (status == LAYER_OK) {
        printf("received a %s\n", layer_message_type(message));
        server->received = true;
        stop(server);
    }
    return LAYER_STOP;
}

static void on_readable(uv_poll_t *handle, int status, int events) {
    server_t *server = handle->data;
    layer_error_t *error = NULL;
    (void)events;
    if (status < 0) {
        fprintf(stderr, "watching the layer: %s\n", uv_strerror(status));
        return;
    }
    must(layer_poll(server->layer, 64, 0, NULL, &error), &error, "run callbacks");
}
/* [end] */

static void on_silence(uv_timer_t *timer) {
    fprintf(stderr, "nothing has come\n");
    stop(timer->data);
}

static void on_sent(void *userdata, layer_status_t status, const layer_error_t *error) {
    (void)userdata;
    if (status != LAYER_OK) {
        fprintf(stderr, "not sent: %s\n", layer_error_message(error));
    }
}

int main(int argc, char **argv) {
    static const char hello[] = "\x81\xa4type\xa5hello"; /* {"type": "hello"} as MessagePack */
    server_t server = {0};
    layer_error_t *error = NULL;
    uv_loop_t *loop = uv_default_loop();
    layer_config_t *config = layer_config_new();
    must(layer_config_set(config, "host", argc > 1 ? argv[1] : "memory://libuv", &error), &error,
         "set the host");
    must(layer_config_set(config, "dispatch", "poll", &error), &error, "set dispatch");
    must(layer_new(config, &server.layer, &error), &error, "open a layer");
    layer_config_free(config);

    /* [watch] */
    server.readable.data = &server;
    uv_poll_init(loop, &server.readable, layer_fd(server.layer));
    uv_poll_start(&server.readable, UV_READABLE, on_readable);
    /* [end] */
    server.patience.data = &server;
    uv_timer_init(loop, &server.patience);
    uv_timer_start(&server.patience, on_silence, SILENCE_MS, 0);

    must(layer_new_channel(server.layer, NULL, server.channel, sizeof server.channel, &error),
         &error, "name a channel");
    must(layer_receive(server.layer, server.channel, on_message, &server, NULL, NULL, &error),
         &error, "receive");
    must(layer_send_async(server.layer, server.channel, (const uint8_t *)hello, strlen(hello),
                          on_sent, NULL, NULL, &error),
         &error, "send");
    uv_run(loop, UV_RUN_DEFAULT);

    /* [close] */
    must(layer_close(server.layer, 5000, &error), &error, "close");
    layer_free(server.layer); /* after uv_close of what watches its descriptor */
    uv_loop_close(loop);
    /* [end] */
    return server.received ? 0 : 1;
}
