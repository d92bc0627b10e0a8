/* A server that forks its workers, each with a layer of its own: prefork [HOST]
 *
 * The workers are in one group. Each, once it is in, tells the parent; the parent then sends one
 * message to the group, and each worker ends with status 0 when it has come. */

#include <sys/wait.h>
#include <unistd.h>

#include "must.h"

#define WORKERS 3

static layer_t *open_layer(const char *host) {
    layer_error_t *error = NULL;
    layer_t *layer = NULL;
    layer_config_t *config = layer_config_new();
    must(layer_config_set(config, "host", host, &error), &error, "set the host");
    must(layer_new(config, &layer, &error), &error, "open a layer");
    layer_config_free(config);
    must(layer_wait_ready(layer, 20000, &error), &error, "connect");
    return layer;
}

/* [worker] */
static int work(const char *host, const char *group, int ready) {
    layer_error_t *error = NULL;
    layer_t *layer = open_layer(host); /* after the fork: this process's own queue */
    layer_message_t *message = NULL;
    char channel[LAYER_NAME_SIZE];
    must(layer_new_channel(layer, NULL, channel, sizeof channel, &error), &error, "name");
    must(layer_group_add(layer, group, channel, &error), &error, "join");
    if (write(ready, "!", 1) != 1) {
        return 1;
    }
    must(layer_receive_next(layer, channel, 20000, &message, &error), &error, "receive");
    printf("worker %d received a %s\n", (int)getpid(), layer_message_type(message));
    layer_message_free(message);
    must(layer_close(layer, 5000, &error), &error, "close");
    layer_free(layer);
    return 0;
}
/* [end] */

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: %s HOST\n", argv[0]);
        return 2;
    }
    char group[LAYER_NAME_SIZE];
    snprintf(group, sizeof group, "workers.%d", (int)getpid());
    int ready[2];
    char signs[WORKERS];
    size_t heard = 0;
    int failed = 0;
    if (pipe(ready) != 0) {
        perror("pipe");
        return 1;
    }

    /* [fork] */
    for (int i = 0; i < WORKERS; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            close(ready[0]);
            exit(work(argv[1], group, ready[1]));
        }
        if (pid < 0) {
            perror("fork");
            return 1;
        }
    }
    /* [end] */

    close(ready[1]);
    while (heard < WORKERS) {
        ssize_t count = read(ready[0], signs, sizeof signs);
        if (count <= 0) {
            fprintf(stderr, "a worker has failed\n");
            return 1;
        }
        heard += (size_t)count;
    }
    /* [parent] */
    layer_error_t *error = NULL;
    layer_t *layer = open_layer(argv[1]); /* the parent's, opened after the forks */
    must(layer_group_send_json(layer, group, "{\"type\": \"job\"}", &error), &error, "send");
    /* [end] */
    for (int i = 0; i < WORKERS; i++) {
        int status;
        failed += wait(&status) < 0 || status != 0;
    }

    /* [child] */
    /* A process that is forked later finds the parent's layer unusable, and can leave it there. */
    pid_t pid = fork();
    if (pid == 0) {
        layer_status_t status = layer_group_send_json(layer, group, "{\"type\": \"job\"}", NULL);
        layer_free(layer); /* touches nothing here */
        _exit(status == LAYER_FORKED ? 0 : 1);
    }
    /* [end] */
    int status;
    failed += waitpid(pid, &status, 0) < 0 || status != 0;
    layer_free(layer);
    return failed == 0 ? 0 : 1;
}
