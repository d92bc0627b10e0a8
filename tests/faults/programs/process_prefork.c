/*
 * A prefork server: process_prefork HOST WORKERS MESSAGES WAY, with WAY `fresh` (the parent has not
 * used the library) or `used` (it has opened a layer, used it and closed it).
 *
 * Each worker opens a layer of its own and joins one group; each sends MESSAGES to the group, and
 * must receive those of all workers, each once and in the order of its sender. Meanwhile one more
 * worker that does the same is killed. Pipes are the barriers.
 */
#include "process.h"

#include <fcntl.h>

#define WORKERS 64
/* A message is the number of its sender times this, plus its own. */
#define EACH 1000000

static const char *host, *group;
static int workers, messages;
/* Written by each worker when it is ready, and when it has sent half; read at once by the parent,
 * whose closing of `go` lets all begin. */
static int ready[2], half[2], go[2];

struct seen {
    atomic_llong next[WORKERS + 1], wrong, count;
};

static int32_t on_message(void *userdata, layer_status_t status, const layer_message_t *message) {
    struct seen *seen = userdata;
    if (status == LAYER_OK) {
        int64_t number = number_of(message);
        int64_t sender = number / EACH;
        if (sender < 0 || sender > workers ||
            atomic_fetch_add(&seen->next[sender], 1) != number % EACH) {
            atomic_fetch_add(&seen->wrong, 1);
        }
        if (sender < workers) {
            atomic_fetch_add(&seen->count, 1);
        }
    }
    return LAYER_CONTINUE;
}

/* Gives its exit status. The last worker is the one that is killed: it sends for ever. */
static int work(int self) {
    static struct seen seen;
    char channel[LAYER_NAME_SIZE], byte;
    close(ready[0]);
    close(half[0]);
    close(go[1]);
    layer_t *layer =
        open_layer(host, "remote_capacity", "100000", "local_capacity", "100000", NULL);
    MUST(layer_new_channel(layer, NULL, channel, sizeof channel, ERROR));
    MUST(layer_receive(layer, channel, on_message, &seen, NULL, NULL, ERROR));
    MUST(layer_group_add(layer, group, channel, ERROR));
    MUST_BE(write(ready[1], channel, 12 + sizeof "channels_") == 12 + sizeof "channels_");
    MUST_BE(read(go[0], &byte, 1) == 0);
    for (int64_t i = 0; i < messages || self == workers; i++) {
        if (group_send_number(layer, group, self * (int64_t)EACH + i, NULL) != LAYER_OK) {
            return 2;
        }
        if (i == messages / 2) {
            MUST_BE(write(half[1], "h", 1) == 1);
        }
    }
    if (!WAIT(atomic_load(&seen.count) >= (long long)workers * messages, 60)) {
        return 3;
    }
    MUST(layer_close(layer, 10000, ERROR));
    layer_free(layer);
    return atomic_load(&seen.wrong) == 0 &&
                   atomic_load(&seen.count) == (long long)workers * messages
               ? 0
               : 4;
}

int main(int argc, char **argv) {
    MUST_BE(argc == 5);
    char name[64], text[64], queues[WORKERS + 1][12 + sizeof "channels_"], byte;
    host = argv[1];
    workers = atoi(argv[2]);
    messages = atoi(argv[3]);
    MUST_BE(workers > 0 && workers < WORKERS && messages < EACH);
    snprintf(name, sizeof name, "workers-%d", getpid());
    group = name;
    if (strcmp(argv[4], "used") == 0) {
        use_and_close(host);
    }
    MUST_BE(pipe2(ready, O_CLOEXEC) == 0 && pipe2(half, O_CLOEXEC) == 0 &&
            pipe2(go, O_CLOEXEC) == 0);
    pid_t children[WORKERS + 1];
    for (int i = 0; i <= workers; i++) {
        children[i] = fork();
        MUST_BE(children[i] >= 0);
        if (children[i] == 0) {
            _exit(work(i));
        }
    }
    close(ready[1]);
    close(half[1]);
    close(go[0]);
    for (int i = 0; i <= workers; i++) {
        MUST_BE(read(ready[0], queues[i], sizeof queues[i]) == sizeof queues[i]);
    }
    int same = 0;
    for (int i = 0; i <= workers; i++) {
        for (int j = 0; j < i; j++) {
            same += memcmp(queues[i], queues[j], sizeof queues[i]) == 0;
        }
    }
    check("each worker has a queue of its own", same == 0, "%d workers, %d names twice",
          workers + 1, same);
    close(go[1]);
    for (int i = 0; i <= workers; i++) { /* All are in the middle of it. */
        MUST_BE(read(half[0], &byte, 1) == 1);
    }
    kill(children[workers], SIGKILL);
    int killed = end_of(children[workers], 10), wrong = 0;
    const char *first = "";
    for (int i = 0; i < workers; i++) {
        int status = end_of(children[i], 90);
        if (status != 0 && wrong++ == 0) {
            first = ending(status, text);
        }
    }
    check("each worker receives the messages of all, once and in order, while one is killed",
          wrong == 0 && WIFSIGNALED(killed), "%d of %d workers went wrong %s, %d messages for each",
          wrong, workers, first, workers * messages);
    return 0;
}
