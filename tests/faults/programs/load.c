/*
 * Load on the C API, and a ledger of all that came of it: load HOST LEDGER [NAME=VALUE...]
 *
 * A few layers send to each other, directly and by a group, from threads that wait and from one
 * that does not, while memberships come and go. Whoever runs this causes faults meanwhile, and
 * judges the ledger (tests/faults/ledger.py) afterwards. Nothing is judged here, except that calls
 * end.
 *
 * NAME=VALUE: layers, channels (of each layer), senders (threads that wait), rate (sends a second,
 * of all together), window (sends that do not wait, at most), pad (bytes in each message), or
 * layer.OPTION for an option of the layers. Of several hosts, each layer begins with another.
 *
 * Commands on standard input: `stop` ends the load in good order and checks that every receiver is
 * still reached; `close MS` closes all layers amid the load; the end of the input is a `stop`.
 * Standard output tells `state LAYER STATE GENERATION` as it happens, and `ended`.
 *
 * The ledger, one event a line, each with the microseconds of the monotonic clock:
 *   S time id sender sequence d|g layer channel   a send begins (g: to the group of all channels)
 *   O time id status                              its outcome
 *   D time layer channel id sender sequence       a delivery to a receiver
 *   T time layer state generation                 the state of a layer changed
 *   A time microseconds status                    layer_group_add returned
 *   R time layer statistic value                  a statistic at the end
 *   C time layer microseconds status              layer_close returned
 *   E time given destroyed                        the end, with how often userdata was
 */
#define _GNU_SOURCE

#include "channel_layer.h"

#include "numbered.h"
#include "sending.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define MAX_LAYERS 8
#define MAX_CHANNELS 32
#define MAX_SENDERS 16
#define NAME_SIZE 128

/* Of the threads that send without waiting, and of the last message to each channel. */
#define ASYNC_SENDER 100
#define FENCE_SENDER 101
#define SENDERS 102

struct channel {
    unsigned layer, number;
    char name[NAME_SIZE];
    atomic_bool fenced; /* its last message has arrived */
};

static struct {
    unsigned layers, channels, senders, rate, window, pad;
} load = {.layers = 2, .channels = 3, .senders = 3, .rate = 1500, .window = 200, .pad = 100};

static layer_t *layers[MAX_LAYERS];
static struct channel channels[MAX_LAYERS][MAX_CHANNELS];
static FILE *ledger;
static atomic_bool stopping;
static char group_of_all[NAME_SIZE - 20]; /* and of this process alone */
static atomic_uint_fast64_t next_id;

/* --- The ledger ------------------------------------------------------------------------------ */

__attribute__((format(printf, 1, 2))) static void enter(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vfprintf(ledger, format, arguments); /* stdio locks: a line stays whole */
    va_end(arguments);
}

__attribute__((format(printf, 1, 2), noreturn)) static void die(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "load: ");
    vfprintf(stderr, format, arguments);
    fprintf(stderr, "\n");
    va_end(arguments);
    fflush(ledger);
    _exit(3);
}

static void must(layer_status_t status, layer_error_t *error, const char *call) {
    if (status != LAYER_OK) {
        die("%s: %s", call, error != NULL ? layer_error_message(error) : "no error object");
    }
}

/* --- Messages -------------------------------------------------------------------------------- */

static void delivered(struct channel *channel, const layer_message_t *message) {
    size_t length;
    const uint8_t *data = layer_message_data(message, &length);
    if (length < HEAD_SIZE) {
        die("a message of %zu bytes arrived that nobody sent", length);
    }
    uint64_t id = number_at(data + 4), sender = number_at(data + 15);
    enter("D %llu %u %u %llu %llu %llu\n", (unsigned long long)now(), channel->layer,
          channel->number, (unsigned long long)id, (unsigned long long)sender,
          (unsigned long long)number_at(data + 26));
    if (sender == FENCE_SENDER) {
        atomic_store(&channel->fenced, true);
    }
}

/* --- Callbacks ------------------------------------------------------------------------------- */

static int32_t on_message(void *userdata, layer_status_t status, const layer_message_t *message) {
    (void)status; /* without a message it is the end, which `destroy` follows */
    if (message != NULL) {
        delivered(userdata, message);
    }
    return LAYER_CONTINUE;
}

static void on_state(void *userdata, layer_state_t state, uint64_t generation) {
    unsigned layer = (unsigned)(size_t)userdata;
    enter("T %llu %u %d %llu\n", (unsigned long long)now(), layer, (int)state,
          (unsigned long long)generation);
    printf("state %u %d %llu\n", layer, (int)state, (unsigned long long)generation);
    fflush(stdout);
}

static void on_destroy(void *userdata) {
    (void)userdata;
    atomic_fetch_add(&destroyed, 1);
}

static void on_log(void *userdata, layer_log_level_t level, const char *id, const char *target,
                   const char *message) {
    (void)userdata;
    fprintf(stderr, "%llu log %d %s %s: %s\n", (unsigned long long)now(), (int)level, id, target,
            message);
}

static void tell_outcome(uint64_t id, layer_status_t status) {
    enter("O %llu %llu %d\n", (unsigned long long)now(), (unsigned long long)id, (int)status);
}

/* --- Sending --------------------------------------------------------------------------------- */

/* What one thread sends: it keeps its own pace, and its own sequence for each destination. */
struct sender {
    uint64_t number;
    layer_t *layer;
    uint64_t random, next;
    uint64_t to_channel[MAX_LAYERS][MAX_CHANNELS], to_group;
};

static void pace(struct sender *sender) {
    uint64_t interval = 1000000ull * (load.senders + 1) / load.rate, time = now();
    sender->next += interval;
    if (sender->next > time) {
        usleep((useconds_t)(sender->next - time));
    } else if (time - sender->next > 100000) {
        sender->next = time; /* what a wait has cost is not caught up with */
    }
}

/* A send; whether the layer still takes any. */
static bool send_one(struct sender *sender, bool waits) {
    uint8_t message[NUMBERED_SIZE + UINT16_MAX];
    bool to_group = draw(&sender->random, 10) < 3;
    unsigned layer = (unsigned)draw(&sender->random, load.layers);
    unsigned channel = (unsigned)draw(&sender->random, load.channels);
    uint64_t id = atomic_fetch_add(&next_id, 1);
    uint64_t sequence = to_group ? ++sender->to_group : ++sender->to_channel[layer][channel];
    size_t length = write_message(message, id, sender->number, sequence, load.pad);
    const char *name = channels[layer][channel].name;

    enter("S %llu %llu %llu %llu %c %u %u\n", (unsigned long long)now(), (unsigned long long)id,
          (unsigned long long)sender->number, (unsigned long long)sequence, to_group ? 'g' : 'd',
          layer, channel);
    layer_status_t status = send_message(sender->layer, to_group ? group_of_all : NULL, name,
                                         message, length, id, waits);
    return status != LAYER_CLOSED;
}

static void *send_and_wait(void *argument) {
    struct sender *sender = argument;
    while (!atomic_load(&stopping) && send_one(sender, true)) {
        pace(sender);
    }
    return NULL;
}

static void *send_without_waiting(void *argument) {
    struct sender *sender = argument;
    while (!atomic_load(&stopping)) {
        if (atomic_load(&in_flight) < (int)load.window && !send_one(sender, false)) {
            break;
        }
        pace(sender);
    }
    return NULL;
}

/* Memberships that come and go, so that binds and unbinds are under way when a fault comes. */
static void *join_and_leave(void *argument) {
    (void)argument;
    for (unsigned turn = 0; !atomic_load(&stopping); turn++) {
        struct channel *channel = &channels[turn % load.layers][0];
        layer_t *layer = layers[channel->layer];
        char group[NAME_SIZE];
        layer_error_t *error = NULL;
        uint64_t begin = now();
        snprintf(group, sizeof group, "%s.%u", group_of_all, turn % 40);
        layer_status_t status = layer_group_add(layer, group, channel->name, &error);
        enter("A %llu %llu %d\n", (unsigned long long)now(), (unsigned long long)(now() - begin),
              (int)status);
        layer_error_free(error);
        error = NULL;
        if (turn % 3 != 0) {
            (void)!layer_group_discard(layer, group, channel->name, &error);
            layer_error_free(error);
        }
        if (status == LAYER_CLOSED) {
            break;
        }
        usleep(10000);
    }
    return NULL;
}

/* The last channel of layer 0 is received from by pulling. */
static void *pull(void *argument) {
    struct channel *channel = argument;
    for (;;) {
        layer_message_t *message = NULL;
        layer_error_t *error = NULL;
        layer_status_t status = layer_receive_next(layers[0], channel->name, 500, &message, &error);
        layer_error_free(error);
        if (status == LAYER_OK) {
            delivered(channel, message);
            layer_message_free(message);
        } else if (status != LAYER_TIMEOUT) {
            return NULL;
        }
    }
}

/* --- The run --------------------------------------------------------------------------------- */

/* The comma-separated `hosts`, beginning with the `first`th. */
static void rotate(const char *hosts, unsigned first, char *rotated, size_t size) {
    const char *at = hosts;
    for (const char *comma; first > 0; first--) {
        comma = strchr(at, ',');
        at = comma != NULL ? comma + 1 : hosts;
    }
    int before = (int)(at - hosts) - 1;
    snprintf(rotated, size, "%s%s%.*s", at, at != hosts ? "," : "", before > 0 ? before : 0, hosts);
}

static void open_layers(const char *hosts, int count, char **settings) {
    for (unsigned i = 0; i < load.layers; i++) {
        layer_error_t *error = NULL;
        layer_config_t *config = layer_config_new();
        char host[1000];
        rotate(hosts, i, host, sizeof host);
        must(layer_config_set(config, "host", host, &error), error, "host");
        for (int s = 0; s < count; s++) {
            char name[NAME_SIZE];
            if (sscanf(settings[s], "layer.%100[^=]=", name) == 1) {
                must(layer_config_set(config, name, strchr(settings[s], '=') + 1, &error), error,
                     settings[s]);
            }
        }
        must(layer_config_on_state(config, on_state, (void *)(size_t)i, on_destroy, &error), error,
             "on_state");
        must(layer_config_on_log(config, on_log, NULL, on_destroy, &error), error, "on_log");
        atomic_fetch_add(&given, 2);
        must(layer_new(config, &layers[i], &error), error, "layer_new");
        layer_config_free(config);
    }
    for (unsigned i = 0; i < load.layers; i++) {
        layer_error_t *error = NULL;
        must(layer_wait_ready(layers[i], 30000, &error), error, "layer_wait_ready");
        for (unsigned c = 0; c < load.channels; c++) {
            struct channel *channel = &channels[i][c];
            channel->layer = i;
            channel->number = c;
            must(layer_new_channel(layers[i], NULL, channel->name, sizeof channel->name, &error),
                 error, "layer_new_channel");
            must(layer_group_add(layers[i], group_of_all, channel->name, &error), error,
                 "layer_group_add");
            if (i != 0 || c != load.channels - 1) {
                uint64_t receiver;
                atomic_fetch_add(&given, 1);
                must(layer_receive(layers[i], channel->name, on_message, channel, on_destroy,
                                   &receiver, &error),
                     error, "layer_receive");
            }
        }
    }
}

/* Whether `condition` becomes true within `seconds`. */
#define WITHIN(seconds, condition)                                                                 \
    (__extension__({                                                                               \
        uint64_t until_ = now() + (uint64_t)(seconds)*1000000;                                     \
        bool met_;                                                                                 \
        while (!(met_ = (condition)) && now() < until_) {                                          \
            usleep(2000);                                                                          \
        }                                                                                          \
        met_;                                                                                      \
    }))

/* Whether the queue of a layer has another name than the channels of the load: these are reached by
 * their group alone. */
static bool is_renamed(unsigned layer) {
    uint64_t renames;
    must(layer_stat(layers[layer], LAYER_STAT_QUEUE_RENAMES, &renames, NULL), NULL, "layer_stat");
    return renames > 0;
}

/* Sends a last message to each channel, so that all before it has arrived when it does. */
static void fence(void) {
    static struct sender sender = {.number = FENCE_SENDER};
    for (unsigned i = 0; i < load.layers; i++) {
        for (unsigned c = 0; c < load.channels; c++) {
            uint8_t message[NUMBERED_SIZE + UINT16_MAX];
            layer_status_t status = LAYER_INTERNAL;
            /* A peer may have lost its connection just now, or be full of what it is sent. */
            for (int attempt = 0; attempt < 200 && status != LAYER_OK; attempt++) {
                layer_error_t *error = NULL;
                bool to_group = is_renamed(i);
                uint64_t id = atomic_fetch_add(&next_id, 1);
                uint64_t sequence = to_group ? ++sender.to_group : ++sender.to_channel[i][c];
                size_t length = write_message(message, id, FENCE_SENDER, sequence, load.pad);
                enter("S %llu %llu %d %llu %c %u %u\n", (unsigned long long)now(),
                      (unsigned long long)id, FENCE_SENDER, (unsigned long long)sequence,
                      to_group ? 'g' : 'd', i, c);
                status = to_group
                             ? layer_group_send(layers[0], group_of_all, message, length, &error)
                             : layer_send(layers[0], channels[i][c].name, message, length, &error);
                enter("O %llu %llu %d\n", (unsigned long long)now(), (unsigned long long)id,
                      (int)status);
                layer_error_free(error);
                if (status != LAYER_OK) {
                    usleep(50000);
                }
            }
            if (status != LAYER_OK) {
                die("the last message to channel %u of layer %u ends with %s", c, i,
                    layer_status_name(status));
            }
            if (!WITHIN(20, atomic_load(&channels[i][c].fenced))) {
                die("channel %u of layer %u is not reached any more", c, i);
            }
        }
    }
}

/* Of all layers. */
static uint64_t permits_taken(void) {
    uint64_t taken = 0;
    for (unsigned i = 0; i < load.layers; i++) {
        uint64_t value;
        must(layer_stat(layers[i], LAYER_STAT_IN_FLIGHT, &value, NULL), NULL, "layer_stat");
        taken += value;
    }
    return taken;
}

static void enter_statistics(void) {
    for (unsigned i = 0; i < load.layers; i++) {
        for (unsigned which = LAYER_STAT_SENDS_CONFIRMED; which <= LAYER_STAT_DELIVERIES_HELD;
             which++) {
            uint64_t value;
            must(layer_stat(layers[i], which, &value, NULL), NULL, "layer_stat");
            enter("R %llu %u %u %llu\n", (unsigned long long)now(), i, which,
                  (unsigned long long)value);
        }
    }
}

static void close_layers(uint32_t timeout_ms) {
    for (unsigned i = 0; i < load.layers; i++) {
        layer_error_t *error = NULL;
        uint64_t begin = now();
        layer_status_t status = layer_close(layers[i], timeout_ms, &error);
        enter("C %llu %u %llu %d\n", (unsigned long long)now(), i,
              (unsigned long long)(now() - begin), (int)status);
        layer_error_free(error);
    }
}

static void read_settings(int count, char **settings) {
    const struct {
        const char *name;
        unsigned *value, limit;
    } known[] = {
        {"layers", &load.layers, MAX_LAYERS},    {"channels", &load.channels, MAX_CHANNELS},
        {"senders", &load.senders, MAX_SENDERS}, {"rate", &load.rate, 1000000},
        {"window", &load.window, 1000000},       {"pad", &load.pad, UINT16_MAX}};
    for (int s = 0; s < count; s++) {
        bool found = strncmp(settings[s], "layer.", 6) == 0;
        for (size_t k = 0; k < sizeof known / sizeof *known; k++) {
            size_t length = strlen(known[k].name);
            if (strncmp(settings[s], known[k].name, length) == 0 && settings[s][length] == '=') {
                *known[k].value = (unsigned)atoi(settings[s] + length + 1);
                found = *known[k].value > 0 && *known[k].value <= known[k].limit;
            }
        }
        if (!found) {
            fprintf(stderr, "load: bad setting %s\n", settings[s]);
            exit(2);
        }
    }
}

int main(int argc, char **argv) {
    if (argc < 3) {
        fprintf(stderr, "usage: load HOST LEDGER [NAME=VALUE...]\n");
        return 2;
    }
    read_settings(argc - 3, argv + 3);
    ledger = fopen(argv[2], "w");
    if (ledger == NULL) {
        perror(argv[2]);
        return 2;
    }
    setvbuf(ledger, NULL, _IOFBF, 1 << 20);
    snprintf(group_of_all, sizeof group_of_all, "faults.all.%d", (int)getpid());
    atomic_store(&next_id, (uint64_t)getpid() << 32);
    open_layers(argv[1], argc - 3, argv + 3);

    static struct sender senders[SENDERS];
    pthread_t threads[MAX_SENDERS + 3];
    unsigned started = 0;
    for (unsigned s = 0; s <= load.senders; s++) {
        bool waits = s < load.senders;
        senders[s] = (struct sender){.number = waits ? s : ASYNC_SENDER,
                                     .layer = layers[s % load.layers],
                                     .random = 0x9e3779b97f4a7c15u + s,
                                     .next = now()};
        pthread_create(&threads[started++], NULL, waits ? send_and_wait : send_without_waiting,
                       &senders[s]);
    }
    pthread_create(&threads[started++], NULL, join_and_leave, NULL);
    pthread_t puller;
    pthread_create(&puller, NULL, pull, &channels[0][load.channels - 1]);
    printf("started %u\n", load.layers);
    fflush(stdout);

    char line[100];
    unsigned timeout_ms = 0;
    bool amid = false;
    while (!amid && fgets(line, sizeof line, stdin) != NULL && strcmp(line, "stop\n") != 0) {
        amid = sscanf(line, "close %u", &timeout_ms) == 1;
    }
    if (amid) {
        enter_statistics();
        close_layers(timeout_ms);
    }
    atomic_store(&stopping, true);
    for (unsigned t = 0; t < started; t++) {
        struct timespec limit;
        clock_gettime(CLOCK_REALTIME, &limit);
        limit.tv_sec += 60;
        if (pthread_timedjoin_np(threads[t], NULL, &limit) != 0) {
            die("thread %u is stuck in a call", t);
        }
    }
    /* What still has no outcome then has none in the ledger either. */
    (void)WITHIN(15, atomic_load(&in_flight) == 0);
    if (!amid) {
        fence();
        /* The permit of a send is free a moment after its callback has returned. */
        (void)WITHIN(5, permits_taken() == 0);
        enter_statistics();
        close_layers(5000);
    }
    pthread_join(puller, NULL);
    for (unsigned i = 0; i < load.layers; i++) {
        layer_free(layers[i]);
    }
    if (!WITHIN(10, atomic_load(&destroyed) == atomic_load(&given))) {
        fprintf(stderr, "load: not all userdata was destroyed\n"); /* the ledger says it */
    }
    enter("E %llu %llu %llu\n", (unsigned long long)now(), (unsigned long long)atomic_load(&given),
          (unsigned long long)atomic_load(&destroyed));
    if (fclose(ledger) != 0) {
        perror(argv[2]);
        return 3;
    }
    printf("ended\n");
    return 0;
}
