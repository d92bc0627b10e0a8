/*
 * Opens and frees layers, some at once: layers_opened_and_closed HOST LAYERS.
 *
 * Each is ready, sends a message to itself, receives it, and is freed; every other one with
 * `dispatch=poll`. Between the halves, with no layer open, the process is measured.
 */
#include "process.h"

#define AT_ONCE 4

static const char *host;
static atomic_int left, messages;

static int32_t on_message(void *userdata, layer_status_t status, const layer_message_t *message) {
    if (status == LAYER_OK) {
        MUST_BE(number_of(message) == 7);
        atomic_store((atomic_bool *)userdata, true);
    }
    return LAYER_CONTINUE;
}

static void use(bool polled, bool callback) {
    char channel[LAYER_NAME_SIZE];
    atomic_bool received = false;
    layer_message_t *message = NULL;
    layer_t *layer = open_layer(host, "dispatch", polled ? "poll" : "thread", NULL);
    MUST(layer_new_channel(layer, NULL, channel, sizeof channel, ERROR));
    MUST(layer_group_add(layer, "layers", channel, ERROR));
    if (callback) {
        MUST(layer_receive(layer, channel, on_message, &received, NULL, NULL, ERROR));
    }
    MUST(send_number(layer, channel, 7, ERROR));
    if (callback) {
        while (polled && !atomic_load(&received)) {
            MUST(layer_poll(layer, 0, 20000, NULL, ERROR));
        }
        MUST_BE(WAIT(atomic_load(&received), 20));
    } else {
        MUST(layer_receive_next(layer, channel, 20000, &message, ERROR));
        MUST_BE(number_of(message) == 7);
        layer_message_free(message);
    }
    atomic_fetch_add(&messages, 1);
    layer_free(layer);
}

static void *use_on(void *unused) {
    (void)unused;
    for (int i; (i = atomic_fetch_sub(&left, 1)) > 0;) {
        use(i % 2, i / 2 % 2);
    }
    return NULL;
}

struct measure {
    struct memory memory;
    long threads, descriptors;
};

static struct measure use_layers(int count, long bare) {
    pthread_t users[AT_ONCE];
    atomic_store(&left, count);
    for (int i = 0; i < AT_ONCE; i++) {
        users[i] = start(use_on, NULL);
    }
    for (int i = 0; i < AT_ONCE; i++) {
        pthread_join(users[i], NULL);
    }
    WAIT(threads() == bare, 5); /* A thread that was joined may be seen for a moment still. */
    return (struct measure){measure_memory(), threads(), descriptors()};
}

int main(int argc, char **argv) {
    MUST_BE(argc == 3);
    use_one_arena();
    host = argv[1];
    int layers = atoi(argv[2]);
    long bare = threads(), bare_descriptors = descriptors();
    double began = now(), cpu = cpu_seconds();
    struct measure first = use_layers(layers / 2, bare);
    struct measure second = use_layers(layers - layers / 2, bare);
    check("each layer was ready and received its message", atomic_load(&messages) == layers,
          "%d of %d", atomic_load(&messages), layers);
    check_flat("the second half grows by less than 1 MiB", first.memory, second.memory);
    check("no thread is left", first.threads == bare && second.threads == bare,
          "%ld before, %ld, then %ld", bare, first.threads, second.threads);
    check("no descriptor is left",
          first.descriptors == bare_descriptors && second.descriptors == bare_descriptors,
          "%ld before, %ld, then %ld", bare_descriptors, first.descriptors, second.descriptors);
    figure("RSS growth of the second half", "%ld KiB", second.memory.held - first.memory.held);
    figure("a layer took", "%.1f ms, of them %.1f ms of CPU", (now() - began) * 1e3 / layers,
           (cpu_seconds() - cpu) * 1e3 / layers);
    return 0;
}
