/*
 * What the row `chaos` does things to: chaos HOST SLOTS CHANNELS RATE [OPTION=VALUE...]
 *
 * Layers in numbered slots send to each other, directly and by one group, from threads that wait
 * and from one that does not, while commands open, close and fork. All that happens is told on
 * standard output as it happens; nothing is judged here (tests/faults/chaos/oracle.py does).
 *
 * Commands on standard input, each with a number, each on a thread of its own; `done NUMBER` tells
 * its end: `NUMBER open SLOT`, `close SLOT MS`, `stall SLOT CHANNEL`, `resume SLOT CHANNEL`,
 * `remove SLOT CHANNEL`, `add SLOT CHANNEL`, `oversize SLOT BYTES`, `fork SLOT`. `stop`, or the end
 * of the input, ends the program.
 *
 * Events, each with the microseconds of the monotonic clock. A layer has a number of its own, which
 * no other layer of the run has:
 *   N time layer channel name        a layer is open, with a channel of this name
 *   M time layer channel             the channel is in the group, says layer_group_add
 *   V time layer channel 0|1         somebody receives from the channel, or nobody does
 *   S time id sender sequence d|g|o layer channel from   a send begins (o: one that is too large)
 *   O time id status                 its outcome
 *   D time layer channel id sender sequence              a delivery to a receiver
 *   T time layer state generation    the state of a layer changed
 *   Q time layer                     the layer has a queue of another name than its channels have
 *   A time call microseconds status limit-in-ms          another call returned
 *   X time layer                     the layer begins to close
 *   C time layer microseconds status limit-in-ms         layer_close returned
 *   F time what wanted got           a child called `what` on its parent's layer, or ended
 *   K time                           nothing; each 50 ms
 *   E time given destroyed           the end, with how often userdata was
 */
#define _GNU_SOURCE

#include "channel_layer.h"

#include "numbered.h"
#include "sending.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAX_SLOTS 8
#define MAX_CHANNELS 8
#define SENDERS 3
#define ASYNC_SENDER 100
#define LARGE_SENDER 102
#define PAD 100
#define WINDOW 100
#define CHILD_SECONDS 20

struct channel {
    unsigned layer, number;
    char name[LAYER_NAME_SIZE];
    uint64_t receiver; /* 0: nobody receives */
    pthread_mutex_t lock;
    pthread_cond_t resumed;
    bool stalled;
};

/* A layer with its channels; never freed, since events of the layer may come until its end. */
struct open_layer {
    unsigned number;
    layer_t *layer;
    atomic_bool named, renamed;
    struct channel channels[MAX_CHANNELS];
};

struct slot {
    pthread_rwlock_t lock;   /* whoever uses the layer reads, whoever frees it writes */
    pthread_mutex_t command; /* commands about this slot, one at a time */
    struct open_layer *open; /* NULL: closed */
};

static struct slot slots[MAX_SLOTS];
static unsigned slot_count, channel_count, rate;
static const char *hosts;
static char **options;
static int option_count;
static uint32_t timeout_ms = 10000;
static char group_of_all[64];
static atomic_bool stopping;
static atomic_uint next_layer;
static atomic_uint_fast64_t next_id;
static atomic_int commands_running;

__attribute__((format(printf, 1, 2))) static void tell(const char *format, ...) {
    /* One write for each line, so that lines of a child stay whole too. */
    char line[400];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    if (write(STDOUT_FILENO, line, (size_t)length) != length) {
        _exit(4); /* the harness is gone */
    }
}

__attribute__((format(printf, 1, 2), noreturn)) static void die(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "chaos: ");
    vfprintf(stderr, format, arguments);
    fprintf(stderr, "\n");
    va_end(arguments);
    _exit(3);
}

static void must(layer_status_t status, layer_error_t *error, const char *call) {
    if (status != LAYER_OK) {
        die("%s: %s", call, error != NULL ? layer_error_message(error) : "no error object");
    }
}

static unsigned long long at(void) { return (unsigned long long)now(); }

/* --- Callbacks ------------------------------------------------------------------------------- */

static int32_t on_message(void *userdata, layer_status_t status, const layer_message_t *message) {
    struct channel *channel = userdata;
    (void)status; /* without a message it is the end, which `destroy` follows */
    if (message == NULL) {
        return LAYER_CONTINUE;
    }
    size_t length;
    const uint8_t *data = layer_message_data(message, &length);
    if (length < HEAD_SIZE) {
        die("a message of %zu bytes arrived that nobody sent", length);
    }
    tell("D %llu %u %u %llu %llu %llu\n", at(), channel->layer, channel->number,
         (unsigned long long)number_at(data + 4), (unsigned long long)number_at(data + 15),
         (unsigned long long)number_at(data + 26));
    pthread_mutex_lock(&channel->lock);
    while (channel->stalled) {
        pthread_cond_wait(&channel->resumed, &channel->lock);
    }
    pthread_mutex_unlock(&channel->lock);
    return LAYER_CONTINUE;
}

/* Of the queue that a channel name begins with. */
static size_t queue_length(const char *name) { return strcspn(name, "!"); }

static void on_state(void *userdata, layer_state_t state, uint64_t generation) {
    struct open_layer *open = userdata;
    tell("T %llu %u %d %llu\n", at(), open->number, (int)state, (unsigned long long)generation);
    char name[LAYER_NAME_SIZE];
    const char *old = open->channels[0].name;
    if (state == LAYER_STATE_READY && atomic_load(&open->named) &&
        layer_new_channel(open->layer, NULL, name, sizeof name, NULL) == LAYER_OK &&
        (queue_length(name) != queue_length(old) || memcmp(name, old, queue_length(old)) != 0) &&
        !atomic_exchange(&open->renamed, true)) {
        tell("Q %llu %u\n", at(), open->number);
    }
}

static void on_log(void *userdata, layer_log_level_t level, const char *id, const char *target,
                   const char *message) {
    const struct open_layer *open = userdata;
    fprintf(stderr, "%llu layer %u log %d %s %s: %s\n", at(), open->number, (int)level, id, target,
            message);
}

static void on_destroy(void *userdata) {
    (void)userdata;
    atomic_fetch_add(&destroyed, 1);
}

/* --- Sending --------------------------------------------------------------------------------- */

static void tell_outcome(uint64_t id, layer_status_t status) {
    tell("O %llu %llu %d\n", at(), (unsigned long long)id, (int)status);
}

struct sender {
    uint64_t number, sequence, random, next;
    unsigned slot;
};

static void pace(struct sender *sender) {
    uint64_t interval = 1000000ull * (SENDERS + 1) / rate, time = now();
    sender->next += interval;
    if (sender->next > time) {
        usleep((useconds_t)(sender->next - time));
    } else {
        sender->next = time; /* what a wait has cost is not caught up with */
    }
}

/* Copies the name of a channel of the slot; its layer's number, or 0 where it is closed. */
static unsigned name_of(unsigned slot, unsigned channel, char *name) {
    unsigned number = 0;
    pthread_rwlock_rdlock(&slots[slot].lock);
    if (slots[slot].open != NULL) {
        number = slots[slot].open->number;
        strcpy(name, slots[slot].open->channels[channel].name);
    }
    pthread_rwlock_unlock(&slots[slot].lock);
    return number;
}

static void send_one(struct sender *sender, bool waits) {
    uint8_t message[NUMBERED_SIZE + PAD];
    char name[LAYER_NAME_SIZE] = "";
    bool to_group = draw(&sender->random, 10) < 3;
    unsigned channel = (unsigned)draw(&sender->random, channel_count);
    unsigned layer = name_of((unsigned)draw(&sender->random, slot_count), channel, name);
    pthread_rwlock_rdlock(&slots[sender->slot].lock);
    struct open_layer *open = slots[sender->slot].open;
    if (open == NULL || layer == 0) {
        pthread_rwlock_unlock(&slots[sender->slot].lock);
        return;
    }
    uint64_t id = atomic_fetch_add(&next_id, 1);
    size_t length = write_message(message, id, sender->number, ++sender->sequence, PAD);
    tell("S %llu %llu %llu %llu %c %u %u %u\n", at(), (unsigned long long)id,
         (unsigned long long)sender->number, (unsigned long long)sender->sequence,
         to_group ? 'g' : 'd', layer, channel, open->number);
    send_message(open->layer, to_group ? group_of_all : NULL, name, message, length, id, waits);
    pthread_rwlock_unlock(&slots[sender->slot].lock);
}

static void *send_and_wait(void *argument) {
    struct sender *sender = argument;
    while (!atomic_load(&stopping)) {
        send_one(sender, true);
        pace(sender);
    }
    return NULL;
}

static void *send_without_waiting(void *argument) {
    struct sender *sender = argument;
    while (!atomic_load(&stopping)) {
        if (atomic_load(&in_flight) < WINDOW) {
            send_one(sender, false);
        }
        pace(sender);
    }
    return NULL;
}

static void *tick(void *argument) {
    (void)argument;
    while (!atomic_load(&stopping)) {
        tell("K %llu\n", at());
        usleep(50000);
    }
    return NULL;
}

/* --- Commands -------------------------------------------------------------------------------- */

static layer_config_t *new_config(unsigned first_host) {
    layer_error_t *error = NULL;
    layer_config_t *config = layer_config_new();
    /* The comma-separated hosts, beginning with another for each slot. */
    const char *from = hosts;
    for (; first_host > 0; first_host--) {
        const char *comma = strchr(from, ',');
        from = comma != NULL ? comma + 1 : hosts;
    }
    char rotated[1000];
    snprintf(rotated, sizeof rotated, "%s%s%.*s", from, from != hosts ? "," : "",
             from != hosts ? (int)(from - hosts) - 1 : 0, hosts);
    must(layer_config_set(config, "host", rotated, &error), error, "host");
    for (int i = 0; i < option_count; i++) {
        char name[100];
        if (sscanf(options[i], "%99[^=]=", name) != 1 || strchr(options[i], '=') == NULL) {
            die("bad option %s", options[i]);
        }
        must(layer_config_set(config, name, strchr(options[i], '=') + 1, &error), error,
             options[i]);
    }
    return config;
}

static void receive(struct open_layer *open, struct channel *channel) {
    layer_error_t *error = NULL;
    atomic_fetch_add(&given, 1);
    must(layer_receive(open->layer, channel->name, on_message, channel, on_destroy,
                       &channel->receiver, &error),
         error, "layer_receive");
    tell("V %llu %u %u 1\n", at(), channel->layer, channel->number);
}

static void open_slot(unsigned slot) {
    layer_error_t *error = NULL;
    struct open_layer *open = calloc(1, sizeof *open);
    open->number = atomic_fetch_add(&next_layer, 1) + 1;
    layer_config_t *config = new_config(slot);
    must(layer_config_on_state(config, on_state, open, on_destroy, &error), error, "on_state");
    must(layer_config_on_log(config, on_log, open, on_destroy, &error), error, "on_log");
    atomic_fetch_add(&given, 2);
    must(layer_new(config, &open->layer, &error), error, "layer_new");
    layer_config_free(config);
    for (unsigned c = 0; c < channel_count; c++) {
        struct channel *channel = &open->channels[c];
        channel->layer = open->number;
        channel->number = c;
        pthread_mutex_init(&channel->lock, NULL);
        pthread_cond_init(&channel->resumed, NULL);
        must(layer_new_channel(open->layer, NULL, channel->name, sizeof channel->name, &error),
             error, "layer_new_channel");
        tell("N %llu %u %u %s\n", at(), open->number, c, channel->name);
        receive(open, channel);
    }
    atomic_store(&open->named, true);
    pthread_rwlock_wrlock(&slots[slot].lock);
    slots[slot].open = open;
    pthread_rwlock_unlock(&slots[slot].lock);
    for (unsigned c = 0; c < channel_count; c++) {
        layer_status_t status = LAYER_INTERNAL;
        while (status != LAYER_OK && !atomic_load(&stopping)) {
            uint64_t begin = now();
            status = layer_group_add(open->layer, group_of_all, open->channels[c].name, NULL);
            tell("A %llu layer_group_add %llu %d %u\n", at(), (unsigned long long)(now() - begin),
                 (int)status, timeout_ms);
            if (status == LAYER_OK) {
                tell("M %llu %u %u\n", at(), open->number, c);
            } else {
                usleep(20000);
            }
        }
    }
}

static void resume_all(struct open_layer *open) {
    for (unsigned c = 0; c < channel_count; c++) {
        pthread_mutex_lock(&open->channels[c].lock);
        open->channels[c].stalled = false;
        pthread_cond_broadcast(&open->channels[c].resumed);
        pthread_mutex_unlock(&open->channels[c].lock);
    }
}

static void close_slot(unsigned slot, unsigned limit_ms) {
    struct open_layer *open = slots[slot].open;
    tell("X %llu %u\n", at(), open->number);
    uint64_t begin = now();
    layer_status_t status = layer_close(open->layer, limit_ms, NULL);
    tell("C %llu %u %llu %d %u\n", at(), open->number, (unsigned long long)(now() - begin),
         (int)status, limit_ms);
    resume_all(open);
    pthread_rwlock_wrlock(&slots[slot].lock); /* calls on a closed layer return soon */
    slots[slot].open = NULL;
    pthread_rwlock_unlock(&slots[slot].lock);
    begin = now();
    layer_free(open->layer);
    tell("A %llu layer_free %llu 0 %u\n", at(), (unsigned long long)(now() - begin), timeout_ms);
}

static void set_stalled(struct channel *channel, bool stalled) {
    /* Told before it is so, and when it is over. */
    if (stalled) {
        tell("V %llu %u %u 0\n", at(), channel->layer, channel->number);
    }
    pthread_mutex_lock(&channel->lock);
    channel->stalled = stalled;
    pthread_cond_broadcast(&channel->resumed);
    pthread_mutex_unlock(&channel->lock);
    if (!stalled) {
        tell("V %llu %u %u 1\n", at(), channel->layer, channel->number);
    }
}

static void remove_receiver(struct open_layer *open, struct channel *channel) {
    tell("V %llu %u %u 0\n", at(), channel->layer, channel->number);
    uint64_t begin = now();
    layer_status_t status = layer_receive_cancel(open->layer, channel->receiver, NULL);
    channel->receiver = 0;
    tell("A %llu layer_receive_cancel %llu %d %u\n", at(), (unsigned long long)(now() - begin),
         (int)status, timeout_ms);
}

static void oversize(struct open_layer *open, unsigned bytes) {
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static uint64_t sequence;
    uint8_t *message = malloc(NUMBERED_SIZE + bytes);
    uint64_t id = atomic_fetch_add(&next_id, 1);
    pthread_mutex_lock(&lock);
    size_t length = write_message(message, id, LARGE_SENDER, ++sequence, bytes);
    pthread_mutex_unlock(&lock);
    tell("S %llu %llu %d %llu o %u 0 %u\n", at(), (unsigned long long)id, LARGE_SENDER,
         (unsigned long long)sequence, open->number, open->number);
    layer_status_t status = layer_send(open->layer, open->channels[0].name, message, length, NULL);
    tell("O %llu %llu %d\n", at(), (unsigned long long)id, (int)status);
    free(message);
}

/* In a child: no stdio, and no lock that another thread of the parent may hold. */
static void be_a_child(const struct open_layer *parents, unsigned slot) {
    uint8_t message[NUMBERED_SIZE + PAD];
    size_t length = write_message(message, 0, 0, 0, PAD);
    layer_state_t state;
    char name[LAYER_NAME_SIZE];
    tell("F %llu layer_send %d %d\n", at(), LAYER_FORKED,
         (int)layer_send(parents->layer, parents->channels[0].name, message, length, NULL));
    tell("F %llu layer_state %d %d\n", at(), LAYER_FORKED,
         (int)layer_state(parents->layer, &state, NULL));
    tell("F %llu layer_group_send %d %d\n", at(), LAYER_FORKED,
         (int)layer_group_send(parents->layer, group_of_all, message, length, NULL));
    layer_t *layer;
    layer_config_t *config = new_config(slot);
    must(layer_new(config, &layer, NULL), NULL, "layer_new in a child");
    layer_config_free(config);
    must(layer_new_channel(layer, NULL, name, sizeof name, NULL), NULL, "layer_new_channel");
    layer_status_t status = layer_send(layer, name, message, length, NULL);
    if (status == LAYER_OK) {
        layer_message_t *received = NULL;
        /* Its connection may be lost at any time; what counts is that the call returns. */
        if (layer_receive_next(layer, name, 1000, &received, NULL) == LAYER_OK) {
            layer_message_free(received);
        }
    }
    (void)!layer_close(layer, 1000, NULL);
    layer_free(layer);
    layer_free(parents->layer); /* touches nothing, and its parent goes on */
}

static void fork_slot(const struct open_layer *open, unsigned slot) {
    pid_t child = fork();
    if (child == 0) {
        be_a_child(open, slot);
        _exit(0);
    }
    if (child < 0) {
        die("fork: %s", strerror(errno));
    }
    int status = 0;
    uint64_t until = now() + CHILD_SECONDS * 1000000ull;
    pid_t ended;
    while ((ended = waitpid(child, &status, WNOHANG)) == 0 && now() < until) {
        usleep(10000);
    }
    if (ended != child) {
        kill(child, SIGKILL);
        waitpid(child, &status, 0);
    }
    tell("F %llu exit 0 %d\n", at(), status);
}

struct command {
    char verb[20];
    unsigned number, slot, argument;
};

static void *run_command(void *argument) {
    struct command *command = argument;
    struct slot *slot = &slots[command->slot];
    const char *verb = command->verb;
    pthread_mutex_lock(&slot->command);
    struct open_layer *open = slot->open; /* commands alone change it */
    struct channel *channel =
        open != NULL ? &open->channels[command->argument % channel_count] : NULL;
    if (strcmp(verb, "open") == 0 && open == NULL) {
        open_slot(command->slot);
    } else if (open == NULL) {
        /* What was to be done with it is over. */
    } else if (strcmp(verb, "close") == 0) {
        close_slot(command->slot, command->argument);
    } else if (strcmp(verb, "stall") == 0 || strcmp(verb, "resume") == 0) {
        if (channel->receiver != 0) {
            set_stalled(channel, verb[0] == 's');
        }
    } else if (strcmp(verb, "remove") == 0 && channel->receiver != 0) {
        remove_receiver(open, channel);
    } else if (strcmp(verb, "add") == 0 && channel->receiver == 0) {
        receive(open, channel);
    } else if (strcmp(verb, "oversize") == 0) {
        oversize(open, command->argument);
    } else if (strcmp(verb, "fork") == 0) {
        fork_slot(open, command->slot);
    }
    pthread_mutex_unlock(&slot->command);
    tell("done %u\n", command->number);
    free(command);
    atomic_fetch_sub(&commands_running, 1);
    return NULL;
}

static void read_commands(void) {
    char line[200];
    while (fgets(line, sizeof line, stdin) != NULL && strcmp(line, "stop\n") != 0) {
        struct command *command = calloc(1, sizeof *command);
        if (sscanf(line, "%u %19s %u %u", &command->number, command->verb, &command->slot,
                   &command->argument) < 3 ||
            command->slot >= slot_count) {
            die("bad command %s", line);
        }
        pthread_t thread;
        atomic_fetch_add(&commands_running, 1);
        if (pthread_create(&thread, NULL, run_command, command) != 0) {
            die("no thread for a command");
        }
        pthread_detach(thread);
    }
}

/* --- The run --------------------------------------------------------------------------------- */

#define WITHIN(seconds, condition)                                                                 \
    (__extension__({                                                                               \
        uint64_t until_ = now() + (uint64_t)(seconds)*1000000;                                     \
        bool met_;                                                                                 \
        while (!(met_ = (condition)) && now() < until_) {                                          \
            usleep(2000);                                                                          \
        }                                                                                          \
        met_;                                                                                      \
    }))

int main(int argc, char **argv) {
    if (argc < 5) {
        fprintf(stderr, "usage: chaos HOST SLOTS CHANNELS RATE [OPTION=VALUE...]\n");
        return 2;
    }
    hosts = argv[1];
    slot_count = (unsigned)atoi(argv[2]);
    channel_count = (unsigned)atoi(argv[3]);
    rate = (unsigned)atoi(argv[4]);
    options = argv + 5;
    option_count = argc - 5;
    if (slot_count < 1 || slot_count > MAX_SLOTS || channel_count < 1 ||
        channel_count > MAX_CHANNELS || rate < 1) {
        fprintf(stderr, "chaos: SLOTS and CHANNELS are 1 to 8, RATE is at least 1\n");
        return 2;
    }
    for (int i = 0; i < option_count; i++) {
        double seconds;
        if (sscanf(options[i], "timeout=%lf", &seconds) == 1) {
            timeout_ms = (uint32_t)(seconds * 1000);
        }
    }
    snprintf(group_of_all, sizeof group_of_all, "chaos");
    /* Ids of the harness begin at 1: those of this process are far above. */
    atomic_store(&next_id, (uint64_t)getpid() << 32);
    for (unsigned i = 0; i < slot_count; i++) {
        pthread_rwlockattr_t attributes;
        pthread_rwlockattr_init(&attributes);
        /* Else those who send would keep those who free away for ever. */
        pthread_rwlockattr_setkind_np(&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
        pthread_rwlock_init(&slots[i].lock, &attributes);
        pthread_mutex_init(&slots[i].command, NULL);
    }

    static struct sender senders[SENDERS + 1];
    pthread_t threads[SENDERS + 2];
    unsigned started = 0;
    for (unsigned s = 0; s <= SENDERS; s++) {
        bool waits = s < SENDERS;
        senders[s] = (struct sender){.number = waits ? s : ASYNC_SENDER,
                                     .slot = s % slot_count,
                                     .random = 0x9e3779b97f4a7c15u + s,
                                     .next = now()};
        pthread_create(&threads[started++], NULL, waits ? send_and_wait : send_without_waiting,
                       &senders[s]);
    }
    pthread_create(&threads[started++], NULL, tick, NULL);

    read_commands();
    atomic_store(&stopping, true);
    for (unsigned t = 0; t < started; t++) {
        struct timespec limit;
        clock_gettime(CLOCK_REALTIME, &limit);
        limit.tv_sec += 60;
        if (pthread_timedjoin_np(threads[t], NULL, &limit) != 0) {
            die("thread %u is stuck in a call", t);
        }
    }
    if (!WITHIN(60, atomic_load(&commands_running) == 0)) {
        die("a command is stuck in a call");
    }
    /* What still has no outcome then has none for the oracle either. */
    (void)WITHIN(15, atomic_load(&in_flight) == 0);
    for (unsigned i = 0; i < slot_count; i++) {
        if (slots[i].open != NULL) {
            close_slot(i, 2000);
        }
    }
    (void)WITHIN(10, atomic_load(&destroyed) == atomic_load(&given));
    tell("E %llu %llu %llu\n", at(), (unsigned long long)atomic_load(&given),
         (unsigned long long)atomic_load(&destroyed));
    return 0;
}
