/*
 * What the programs about the process itself share: claims told line by line to the row that runs
 * them, the numbers of the process, messages that are numbers, and layers opened from words. To be
 * included first, since it asks for the GNU names of the system's headers.
 *
 * What goes wrong outside a claim ends the program with status 70: it has shown nothing then.
 */
#ifndef PROCESS_H
#define PROCESS_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "channel_layer.h"
#include "msgpack.h"

#include <dirent.h>
#include <errno.h>
#include <malloc.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* --- Telling the row ------------------------------------------------------------------------- */

static inline void tell(const char *kind, const char *claim, const char *format, va_list values) {
    char figure[512];
    vsnprintf(figure, sizeof figure, format, values);
    printf("%s\t%s\t%s\n", kind, claim, figure);
    fflush(stdout);
}

__attribute__((format(printf, 3, 4))) static inline bool check(const char *claim, bool holds,
                                                               const char *format, ...) {
    va_list values;
    va_start(values, format);
    tell(holds ? "holds" : "fails", claim, format, values);
    va_end(values);
    return holds;
}

__attribute__((format(printf, 2, 3))) static inline void figure(const char *claim,
                                                                const char *format, ...) {
    va_list values;
    va_start(values, format);
    tell("figure", claim, format, values);
    va_end(values);
}

__attribute__((format(printf, 1, 2), noreturn)) static inline void die(const char *format, ...) {
    va_list values;
    va_start(values, format);
    vfprintf(stderr, format, values);
    va_end(values);
    fputc('\n', stderr);
    fflush(stderr);
    _exit(70);
}

/* Calls that must succeed for the program to mean anything. */
#define MUST(call)                                                                                 \
    do {                                                                                           \
        layer_error_t *error = NULL;                                                               \
        layer_status_t status_ = (call);                                                           \
        if (status_ != LAYER_OK) {                                                                 \
            die("%s:%d: %s gave %s: %s", __FILE__, __LINE__, #call, layer_status_name(status_),    \
                layer_error_message(error));                                                       \
        }                                                                                          \
    } while (0)
#define ERROR (&error)

#define MUST_BE(condition)                                                                         \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            die("%s:%d: not so: %s", __FILE__, __LINE__, #condition);                              \
        }                                                                                          \
    } while (0)

/* --- Time ------------------------------------------------------------------------------------ */

static inline double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static inline void pause_for(double seconds) {
    struct timespec time = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
    while (nanosleep(&time, &time) != 0 && errno == EINTR) {
    }
}

/* Waits until `condition`, which other threads bring about; whether it came within `seconds`. */
#define WAIT(condition, seconds)                                                                   \
    ({                                                                                             \
        double deadline_ = now() + (seconds);                                                      \
        bool met_;                                                                                 \
        while (!(met_ = (condition)) && now() < deadline_) {                                       \
            pause_for(0.001);                                                                      \
        }                                                                                          \
        met_;                                                                                      \
    })

static inline double cpu_seconds(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e-6;
}

/* --- The numbers of the process -------------------------------------------------------------- */

static inline long status_number(const char *name) {
    FILE *file = fopen("/proc/self/status", "r");
    char line[256];
    long number = -1;
    MUST_BE(file != NULL);
    while (fgets(line, sizeof line, file) != NULL) {
        if (strncmp(line, name, strlen(name)) == 0) {
            number = strtol(line + strlen(name), NULL, 10);
        }
    }
    fclose(file);
    MUST_BE(number >= 0);
    return number;
}

static inline long rss_kib(void) { return status_number("VmRSS:"); }
static inline long heap_kib(void) { return (long)(mallinfo2().uordblks / 1024); }

/* To be called first by a program that compares its memory before and after: malloc keeps what was
 * freed in one arena for each of many threads, and which arena a thread is given is chance, which
 * alone makes some MiB more or less. */
static inline void use_one_arena(void) { MUST_BE(mallopt(M_ARENA_MAX, 1) == 1); }

/* The resident memory, in KiB: as it is, and without what malloc keeps for later, of which it gives
 * back only what happens to lie at the end; and what the heap has given out. */
struct memory {
    long rss, held, heap;
};

static inline struct memory measure_memory(void) {
    struct memory memory = {.rss = rss_kib()};
    malloc_trim(0);
    memory.held = rss_kib();
    memory.heap = heap_kib();
    return memory;
}

/* The bar for what must not leak: its second half. */
static inline void check_flat(const char *claim, struct memory first, struct memory second) {
    check(
        claim, second.held - first.held < 1024,
        "%ld KiB, then %ld KiB; of the heap %ld KiB, then %ld KiB; with what malloc keeps %ld KiB, "
        "then %ld KiB",
        first.held, second.held, first.heap, second.heap, first.rss, second.rss);
}

static inline long threads(void) { return status_number("Threads:"); }

static inline long descriptors(void) {
    DIR *folder = opendir("/proc/self/fd");
    long count = -3; /* `.`, `..` and the one of the folder. */
    MUST_BE(folder != NULL);
    while (readdir(folder) != NULL) {
        count++;
    }
    closedir(folder);
    return count;
}

/* --- Threads --------------------------------------------------------------------------------- */

static inline pthread_t start(void *(*run)(void *), void *argument) {
    pthread_t thread;
    MUST_BE(pthread_create(&thread, NULL, run, argument) == 0);
    return thread;
}

/* --- Messages that are numbers --------------------------------------------------------------- */

struct number {
    uint8_t data[24];
    size_t length;
};

/* {"n": number} */
static inline struct number number_message(int64_t number) {
    struct number message = {{0x81, 0xa1, 'n', 0xd3}, 12};
    for (int i = 0; i < 8; i++) {
        message.data[4 + i] = (uint8_t)((uint64_t)number >> (56 - 8 * i));
    }
    return message;
}

static inline int64_t number_of(const layer_message_t *message) {
    size_t length;
    const uint8_t *data = layer_message_data(message, &length);
    const uint8_t *value = data == NULL ? NULL : mp_find(data, length, "n");
    int64_t number;
    if (value == NULL || !mp_read_int(value, data + length, &number)) {
        return -1;
    }
    return number;
}

static inline layer_status_t send_number(layer_t *layer, const char *channel, int64_t number,
                                         layer_error_t **error) {
    struct number message = number_message(number);
    return layer_send(layer, channel, message.data, message.length, error);
}

static inline layer_status_t group_send_number(layer_t *layer, const char *group, int64_t number,
                                               layer_error_t **error) {
    struct number message = number_message(number);
    return layer_group_send(layer, group, message.data, message.length, error);
}

/* --- Layers ---------------------------------------------------------------------------------- */

/* `options`: pairs of name and value, up to a NULL. */
static inline layer_config_t *config_of(const char *host, va_list options) {
    layer_config_t *config = layer_config_new();
    const char *name;
    MUST(layer_config_set(config, "host", host, ERROR));
    while ((name = va_arg(options, const char *)) != NULL) {
        MUST(layer_config_set(config, name, va_arg(options, const char *), ERROR));
    }
    return config;
}

__attribute__((sentinel)) static inline layer_config_t *configure(const char *host, ...) {
    va_list options;
    va_start(options, host);
    layer_config_t *config = config_of(host, options);
    va_end(options);
    return config;
}

/* Opens a layer of a config, which is freed, and waits until it is ready. */
static inline layer_t *open_config(layer_config_t *config) {
    layer_t *layer = NULL;
    MUST(layer_new(config, &layer, ERROR));
    layer_config_free(config);
    MUST(layer_wait_ready(layer, 60000, ERROR));
    return layer;
}

__attribute__((sentinel)) static inline layer_t *open_layer(const char *host, ...) {
    va_list options;
    va_start(options, host);
    layer_config_t *config = config_of(host, options);
    va_end(options);
    return open_config(config);
}

/* Opens a layer, sends a message to itself, and closes. */
static inline void use_and_close(const char *host) {
    char channel[LAYER_NAME_SIZE];
    layer_message_t *message;
    layer_t *layer = open_layer(host, NULL);
    MUST(layer_new_channel(layer, NULL, channel, sizeof channel, ERROR));
    MUST(send_number(layer, channel, 1, ERROR));
    MUST(layer_receive_next(layer, channel, 10000, &message, ERROR));
    layer_message_free(message);
    MUST(layer_close(layer, 10000, ERROR));
    layer_free(layer);
}

static inline uint64_t stat_of(const layer_t *layer, uint32_t which) {
    uint64_t value = 0;
    MUST(layer_stat(layer, which, &value, ERROR));
    return value;
}

/* --- The broker, out of reach ------------------------------------------------------------------
 */

/* Shuts the connections of this process down, as a cable that is pulled would; says how many
 * descriptors they had. Found first, since the library gives one up when another is lost. */
static inline int cut_connections(void) {
    int found[64], count = 0;
    for (int fd = 3; fd < 1024 && count < 64; fd++) {
        struct sockaddr_storage peer;
        socklen_t length = sizeof peer;
        if (getpeername(fd, (struct sockaddr *)&peer, &length) == 0 &&
            (peer.ss_family == AF_INET || peer.ss_family == AF_INET6)) {
            found[count++] = fd;
        }
    }
    int cut = 0;
    for (int i = 0; i < count; i++) {
        cut += shutdown(found[i], SHUT_RDWR) == 0;
    }
    MUST_BE(cut > 0);
    return count;
}

/* --- Child processes ------------------------------------------------------------------------- */

/* The wait status of `child`, which is killed if it has not ended within `seconds`: then -1. */
static inline int end_of(pid_t child, double seconds) {
    int status = 0;
    pid_t ended = 0;
    if (!WAIT((ended = waitpid(child, &status, WNOHANG)) != 0, seconds)) {
        kill(child, SIGKILL);
        waitpid(child, &status, 0);
        return -1;
    }
    MUST_BE(ended == child);
    return status;
}

/* How a wait status reads. */
static inline const char *ending(int status, char text[64]) {
    if (status == -1) {
        snprintf(text, 64, "hung and was killed");
    } else if (WIFSIGNALED(status)) {
        snprintf(text, 64, "ended by signal %d", WTERMSIG(status));
    } else {
        snprintf(text, 64, "status %d", WEXITSTATUS(status));
    }
    return text;
}

#endif
