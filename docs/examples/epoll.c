/* A layer in a loop around epoll, with all callbacks on its thread: epoll [HOST] */

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "must.h"

#define SILENCE_MS 20000

typedef struct {
    layer_t *layer;
    char channel[LAYER_NAME_SIZE];
    bool sent;
    bool received;
} server_t;

/* [callbacks] */
/* All of these run in layer_poll, on the loop's own thread: the server needs no lock. */
static int32_t on_message(void *userdata, layer_status_t status, const layer_message_t *message) {
    server_t *server = userdata;
    if (status == LAYER_OK) {
        printf("received a %s\n", layer_message_type(message));
        server->received = true;
    }
    return LAYER_CONTINUE;
}

static void on_sent(void *userdata, layer_status_t status, const layer_error_t *error) {
    server_t *server = userdata;
    if (status != LAYER_OK) {
        fprintf(stderr, "not sent: %s\n", layer_error_message(error));
    }
    server->sent = status == LAYER_OK;
}

static void on_joined(void *userdata, layer_status_t status, const layer_error_t *error) {
    static const char hello[] = "\x81\xa4type\xa5hello"; /* {"type": "hello"} as MessagePack */
    server_t *server = userdata;
    layer_error_t *why = NULL;
    if (status != LAYER_OK) {
        fprintf(stderr, "not joined: %s\n", layer_error_message(error));
        return;
    }
    must(layer_send_async(server->layer, server->channel, (const uint8_t *)hello, strlen(hello),
                          on_sent, server, NULL, &why),
         &why, "send");
}
/* [end] */

int main(int argc, char **argv) {
    server_t server = {0};
    layer_error_t *error = NULL;
    /* [open] */
    layer_config_t *config = layer_config_new();
    must(layer_config_set(config, "host", argc > 1 ? argv[1] : "memory://epoll", &error), &error,
         "set the host");
    must(layer_config_set(config, "dispatch", "poll", &error), &error, "set dispatch");
    must(layer_new(config, &server.layer, &error), &error, "open a layer");
    layer_config_free(config);
    /* [end] */

    /* [join] */
    must(layer_new_channel(server.layer, NULL, server.channel, sizeof server.channel, &error),
         &error, "name a channel");
    must(layer_receive(server.layer, server.channel, on_message, &server, NULL, NULL, &error),
         &error, "receive");
    must(layer_group_add_async(server.layer, "loop", server.channel, on_joined, &server, NULL,
                               &error),
         &error, "join");
    /* [end] */

    /* [loop] */
    int loop = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event watch = {.events = EPOLLIN, .data.fd = layer_fd(server.layer)};
    if (loop < 0 || epoll_ctl(loop, EPOLL_CTL_ADD, watch.data.fd, &watch) != 0) {
        perror("epoll");
        return 1;
    }
    while (!server.sent || !server.received) {
        struct epoll_event events[16];
        int count = epoll_wait(loop, events, 16, SILENCE_MS);
        if (count == 0 || (count < 0 && errno != EINTR)) {
            fprintf(stderr, "nothing has come\n");
            return 1;
        }
        for (int i = 0; i < count; i++) {
            if (events[i].data.fd == watch.data.fd) {
                /* At most 64 callbacks, then the other descriptors have their turn. */
                must(layer_poll(server.layer, 64, 0, NULL, &error), &error, "run callbacks");
            }
        }
    }
    /* [end] */

    /* [close] */
    close(loop);
    must(layer_close(server.layer, 5000, &error), &error, "close"); /* runs what is due */
    layer_free(server.layer);
    /* [end] */
    return 0;
}
