/* A layer in a main loop of GLib: glib [HOST] */

#include <stdbool.h>
#include <string.h>

#include <glib-unix.h>

#include "must.h"

#define SILENCE_SECONDS 20

typedef struct {
    layer_t *layer;
    GMainLoop *loop;
    char channel[LAYER_NAME_SIZE];
    bool received;
} server_t;

/* [callbacks] */
/* Runs in layer_poll, on the thread of the loop. */
static int32_t on_message(void *userdata, layer_status_t status, const layer_message_t *message) {
    server_t *server = userdata;
    if (status == LAYER_OK) {
        printf("received a %s\n", layer_message_type(message));
        server->received = true;
        g_main_loop_quit(server->loop);
    }
    return LAYER_STOP;
}

static gboolean on_readable(gint fd, GIOCondition condition, gpointer userdata) {
    server_t *server = userdata;
    layer_error_t *error = NULL;
    (void)fd;
    (void)condition;
    must(layer_poll(server->layer, 64, 0, NULL, &error), &error, "run callbacks");
    return G_SOURCE_CONTINUE;
}
/* [end] */

static gboolean on_silence(gpointer userdata) {
    server_t *server = userdata;
    fprintf(stderr, "nothing has come\n");
    g_main_loop_quit(server->loop);
    return G_SOURCE_REMOVE;
}

static void on_sent(void *userdata, layer_status_t status, const layer_error_t *error) {
    (void)userdata;
    if (status != LAYER_OK) {
        fprintf(stderr, "not sent: %s\n", layer_error_message(error));
    }
}

int main(int argc, char **argv) {
    static const char hello[] = "\x81\xa4type\xa5hello"; /* {"type": "hello"} as MessagePack */
    server_t server = {.loop = g_main_loop_new(NULL, FALSE)};
    layer_error_t *error = NULL;
    layer_config_t *config = layer_config_new();
    must(layer_config_set(config, "host", argc > 1 ? argv[1] : "memory://glib", &error), &error,
         "set the host");
    must(layer_config_set(config, "dispatch", "poll", &error), &error, "set dispatch");
    must(layer_new(config, &server.layer, &error), &error, "open a layer");
    layer_config_free(config);

    /* [watch] */
    guint watch = g_unix_fd_add(layer_fd(server.layer), G_IO_IN, on_readable, &server);
    /* [end] */
    g_timeout_add_seconds(SILENCE_SECONDS, on_silence, &server);

    must(layer_new_channel(server.layer, NULL, server.channel, sizeof server.channel, &error),
         &error, "name a channel");
    must(layer_receive(server.layer, server.channel, on_message, &server, NULL, NULL, &error),
         &error, "receive");
    must(layer_send_async(server.layer, server.channel, (const uint8_t *)hello, strlen(hello),
                          on_sent, NULL, NULL, &error),
         &error, "send");
    g_main_loop_run(server.loop);

    /* [close] */
    g_source_remove(watch); /* before layer_free closes the descriptor */
    must(layer_close(server.layer, 5000, &error), &error, "close");
    layer_free(server.layer);
    /* [end] */
    g_main_loop_unref(server.loop);
    return server.received ? 0 : 1;
}
