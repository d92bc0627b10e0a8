/*
 * Loads, uses and unloads the library, which it is not linked with: process_dlopen LIBRARY HOST
 * ROUNDS. Each other round is run by a thread of its own, which then ends. With ROUNDS 0 it loads
 * and uses it once, unloads it with the layer open and calls running, and ends by returning.
 */
#include "process.h"

#include <dlfcn.h>

#define USED(X)                                                                                    \
    X(layer_abi_version)                                                                           \
    X(layer_config_free)                                                                           \
    X(layer_config_new)                                                                            \
    X(layer_config_set)                                                                            \
    X(layer_free)                                                                                  \
    X(layer_group_add)                                                                             \
    X(layer_group_send)                                                                            \
    X(layer_message_free)                                                                          \
    X(layer_new)                                                                                   \
    X(layer_new_channel)                                                                           \
    X(layer_poll)                                                                                  \
    X(layer_receive)                                                                               \
    X(layer_receive_next)                                                                          \
    X(layer_send)                                                                                  \
    X(layer_wait_ready)

struct library {
    void *handle;
#define MEMBER(name) __typeof__(&name) name;
    USED(MEMBER)
};

static const char *path, *host;

static struct library load(int round) {
    struct library library;
    library.handle = dlopen(path, (round % 3 ? RTLD_NOW : RTLD_LAZY) | RTLD_LOCAL);
    if (library.handle == NULL) {
        die("%s", dlerror());
    }
#define FIND(name)                                                                                 \
    *(void **)&library.name = dlsym(library.handle, #name);                                        \
    MUST_BE(library.name != NULL);
    USED(FIND)
    MUST_BE(library.layer_abi_version() == LAYER_ABI_VERSION);
    return library;
}

#define OK(call) MUST_BE((call) == LAYER_OK)

static int32_t on_message(void *userdata, layer_status_t status, const layer_message_t *message) {
    (void)message;
    atomic_fetch_add((atomic_int *)userdata, status == LAYER_OK);
    return LAYER_CONTINUE;
}

static layer_t *use(const struct library *library, bool polled, atomic_int *received) {
    struct number m = number_message(1);
    char channel[LAYER_NAME_SIZE];
    layer_message_t *message = NULL;
    layer_t *layer = NULL;
    layer_config_t *config = library->layer_config_new();
    OK(library->layer_config_set(config, "host", host, NULL));
    OK(library->layer_config_set(config, "dispatch", polled ? "poll" : "thread", NULL));
    OK(library->layer_new(config, &layer, NULL));
    library->layer_config_free(config);
    OK(library->layer_wait_ready(layer, 60000, NULL));
    OK(library->layer_new_channel(layer, NULL, channel, sizeof channel, NULL));
    OK(library->layer_send(layer, channel, m.data, m.length, NULL));
    OK(library->layer_receive_next(layer, channel, 20000, &message, NULL));
    library->layer_message_free(message);
    OK(library->layer_receive(layer, channel, on_message, received, NULL, NULL, NULL));
    OK(library->layer_group_add(layer, "dlopen", channel, NULL));
    OK(library->layer_group_send(layer, "dlopen", m.data, m.length, NULL));
    while (polled && atomic_load(received) == 0) {
        OK(library->layer_poll(layer, 0, 20000, NULL, NULL));
    }
    MUST_BE(WAIT(atomic_load(received) > 0, 20));
    return layer;
}

static void *run_round(void *argument) {
    int round = (int)(intptr_t)argument;
    atomic_int received = 0;
    struct library library = load(round);
    layer_t *layer = use(&library, round % 2 == 1, &received);
    library.layer_free(layer);
    MUST_BE(dlclose(library.handle) == 0);
    return NULL;
}

static void *send_for_ever(void *argument) {
    const struct library *library = argument;
    struct number m = number_message(1);
    layer_t *layer = NULL;
    OK(library->layer_new(NULL, &layer, NULL));
    for (;;) {
        if (library->layer_send(layer, "nobody!nothing", m.data, m.length, NULL) == LAYER_CLOSED) {
            return NULL;
        }
    }
}

int main(int argc, char **argv) {
    MUST_BE(argc == 4);
    use_one_arena();
    path = argv[1];
    host = argv[2];
    int rounds = atoi(argv[3]);
    if (dlopen(path, RTLD_NOW | RTLD_NOLOAD) != NULL) {
        die("the library is loaded already: this shows nothing");
    }
    if (rounds == 0) {
        static atomic_int received;
        static struct library library;
        library = load(0);
        use(&library, false, &received);
        start(send_for_ever, &library);
        MUST_BE(dlclose(library.handle) == 0);
        pause_for(0.01);
        return 0;
    }
    /* What the first rounds set up once stays. */
    struct memory memory[2] = {{0}};
    long count[2] = {0}, files[2] = {0};
    long bare = threads();
    for (int round = 0; round < rounds; round++) {
        if (round == rounds / 2) {
            memory[0] = measure_memory();
            count[0] = threads();
            files[0] = descriptors();
        }
        if (round % 2 == 0) {
            run_round((void *)(intptr_t)round);
        } else {
            pthread_join(start(run_round, (void *)(intptr_t)(round / 2)), NULL);
        }
        WAIT(threads() == bare, 5);
    }
    memory[1] = measure_memory();
    count[1] = threads();
    files[1] = descriptors();
    check("rounds of dlopen, use and dlclose", true, "%d", rounds);
    check("no thread is left", count[1] == bare && count[0] == bare,
          "%ld before, %ld and %ld after", bare, count[0], count[1]);
    check("no descriptor is left by the second half", files[1] <= files[0], "%ld, then %ld",
          files[0], files[1]);
    check_flat("the second half of the rounds grows by less than 1 MiB", memory[0], memory[1]);
    return 0;
}
