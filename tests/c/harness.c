#include "harness.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define MOST_CHILDREN 8
#define MOST_HOOKS 4
#define CASE_SECONDS 60.0

enum role { ROLE_FOREIGN, ROLE_CASE, ROLE_SPAWNED };

struct thread {
    pthread_t id;
    void (*run)(void *argument);
    void *argument;
    bool ended;
    bool joined;
    struct thread *next;
};

struct gate {
    bool open;
    struct gate *next;
};

struct block {
    struct block *next;
    max_align_t data[];
};

static struct harness_case *cases, **cases_end = &cases;
static struct {
    const char *name;
    harness_child run;
} children[MOST_CHILDREN];
static size_t children_length;
static void (*hooks[MOST_HOOKS])(enum harness_phase, bool);
static size_t hooks_length;

static pthread_mutex_t mutex;
static pthread_cond_t changed;
static double slowdown = 1.0;

/* The running case. Under the lock. */
static struct harness_case *running;
static double running_since, running_limit;
static bool failed;
static char failure[4096];
static struct thread *threads;
static struct gate *gates;
static struct block *blocks;

static jmp_buf leave_case;
static _Thread_local enum role role;
static _Thread_local unsigned callbacks;
static _Thread_local unsigned locks;

/* --- Registration ---------------------------------------------------------------------------- */

void harness_register(struct harness_case *entry) {
    *cases_end = entry;
    cases_end = &entry->next;
}

void harness_register_child(const char *name, harness_child run) {
    if (children_length == MOST_CHILDREN) {
        abort();
    }
    children[children_length].name = name;
    children[children_length++].run = run;
}

void harness_after_case(void (*hook)(enum harness_phase phase, bool failed)) {
    if (hooks_length == MOST_HOOKS) {
        abort();
    }
    hooks[hooks_length++] = hook;
}

/* --- Time and the lock ----------------------------------------------------------------------- */

double harness_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

double harness_scaled(double seconds) { return seconds * slowdown; }

void harness_pause(double seconds) {
    struct timespec pause = {.tv_sec = (time_t)seconds};
    pause.tv_nsec = (long)((seconds - (double)pause.tv_sec) * 1e9);
    while (nanosleep(&pause, &pause) != 0 && errno == EINTR) {
    }
}

static struct timespec timespec_of(double seconds) {
    struct timespec result = {.tv_sec = (time_t)seconds};
    result.tv_nsec = (long)((seconds - (double)result.tv_sec) * 1e9);
    return result;
}

static void prepare_lock(void) {
    pthread_mutexattr_t recursive;
    pthread_mutexattr_init(&recursive);
    pthread_mutexattr_settype(&recursive, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&mutex, &recursive);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&changed, &monotonic);
}

void harness_lock(void) {
    pthread_mutex_lock(&mutex);
    locks++;
}

void harness_unlock(void) {
    if (--locks == 0) {
        pthread_cond_broadcast(&changed);
    }
    pthread_mutex_unlock(&mutex);
}

bool harness_wait(double deadline) {
    struct timespec until = timespec_of(deadline);
    return pthread_cond_timedwait(&changed, &mutex, &until) != ETIMEDOUT;
}

/* --- Failures -------------------------------------------------------------------------------- */

void harness_note(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    flockfile(stdout);
    fputs("# ", stdout);
    vprintf(format, arguments);
    putchar('\n');
    funlockfile(stdout);
    va_end(arguments);
}

void harness_fail(const char *file, int line, const char *what, const char *format, ...) {
    harness_lock();
    if (!failed) {
        failed = true;
        int length = snprintf(failure, sizeof failure, "%s:%d: %s: ", file, line, what);
        if (length > 0 && (size_t)length < sizeof failure) {
            va_list arguments;
            va_start(arguments, format);
            vsnprintf(failure + length, sizeof failure - (size_t)length, format, arguments);
            va_end(arguments);
        }
        for (char *c = failure; *c != '\0'; c++) {
            if (*c == '\n') {
                *c = ' ';
            }
        }
    }
    harness_unlock();
}

bool harness_failed(void) {
    harness_lock();
    bool result = failed;
    harness_unlock();
    return result;
}

void harness_enter_callback(void) { callbacks++; }

void harness_leave_callback(void) { callbacks--; }

static void end_of_thread(void *thread) {
    harness_lock();
    ((struct thread *)thread)->ended = true;
    harness_unlock();
}

void harness_leave(void) {
    if (callbacks > 0) {
        return;
    }
    if (role == ROLE_CASE) {
        longjmp(leave_case, 1);
    }
    if (role == ROLE_SPAWNED) {
        pthread_exit(NULL);
    }
}

/* --- What a case owns ------------------------------------------------------------------------ */

void *case_alloc(size_t size) {
    struct block *block = calloc(1, sizeof *block + size);
    if (block == NULL) {
        fputs("out of memory\n", stderr);
        abort();
    }
    harness_lock();
    block->next = blocks;
    blocks = block;
    harness_unlock();
    return block->data;
}

const char *text(const char *format, ...) {
    va_list arguments, again;
    va_start(arguments, format);
    va_copy(again, arguments);
    int length = vsnprintf(NULL, 0, format, arguments);
    char *result = case_alloc((size_t)length + 1);
    vsnprintf(result, (size_t)length + 1, format, again);
    va_end(again);
    va_end(arguments);
    return result;
}

const char *unique(const char *prefix) {
    uint64_t random;
    if (getrandom(&random, sizeof random, 0) != (ssize_t)sizeof random) {
        abort();
    }
    char letters[13];
    for (size_t i = 0; i < sizeof letters - 1; i++, random /= 26) {
        letters[i] = (char)('a' + random % 26);
    }
    letters[sizeof letters - 1] = '\0';
    return text("%s%s", prefix, letters);
}

static void *run_thread(void *argument) {
    struct thread *thread = argument;
    role = ROLE_SPAWNED;
    pthread_cleanup_push(end_of_thread, thread);
    thread->run(thread->argument);
    pthread_cleanup_pop(1);
    return NULL;
}

struct thread *spawn(void (*run)(void *argument), void *argument) {
    struct thread *thread = case_alloc(sizeof *thread);
    thread->run = run;
    thread->argument = argument;
    int code = pthread_create(&thread->id, NULL, run_thread, thread);
    CHECK(code == 0, "pthread_create: %s", strerror(code));
    harness_lock();
    thread->next = threads;
    threads = thread;
    harness_unlock();
    return thread;
}

static bool try_join(struct thread *thread, double seconds) {
    double deadline = harness_now() + harness_scaled(seconds);
    harness_lock();
    while (!thread->ended && harness_wait(deadline)) {
    }
    bool ended = thread->ended;
    harness_unlock();
    if (ended && !thread->joined) {
        pthread_join(thread->id, NULL);
        thread->joined = true;
    }
    return ended;
}

void join_within(struct thread *thread, double seconds) {
    CHECK(try_join(thread, seconds), "the thread did not end within %.1f s", seconds);
    if (harness_failed()) {
        harness_leave();
    }
}

void join(struct thread *thread) { join_within(thread, WAIT_SECONDS); }

bool thread_ended(struct thread *thread) {
    harness_lock();
    bool result = thread->ended;
    harness_unlock();
    return result;
}

struct gate *gate_new(void) {
    struct gate *gate = case_alloc(sizeof *gate);
    harness_lock();
    gate->next = gates;
    gates = gate;
    harness_unlock();
    return gate;
}

void gate_open(struct gate *gate) {
    harness_lock();
    gate->open = true;
    harness_unlock();
}

bool gate_is_open(struct gate *gate) {
    harness_lock();
    bool result = gate->open;
    harness_unlock();
    return result;
}

void gate_wait_at(const char *file, int line, struct gate *gate) {
    double deadline = harness_now() + harness_scaled(WAIT_SECONDS);
    harness_lock();
    while (!gate->open && harness_wait(deadline)) {
    }
    bool open = gate->open;
    harness_unlock();
    if (!open) {
        harness_fail(file, line, "gate", "nobody opened it within %.0f s", WAIT_SECONDS);
        harness_leave();
    }
}

/* --- Running --------------------------------------------------------------------------------- */

void harness_limit(double seconds) {
    harness_lock();
    running_limit = seconds;
    harness_unlock();
}

static void *watch(void *unused) {
    (void)unused;
    for (;;) {
        harness_pause(0.5);
        harness_lock();
        double seconds = harness_now() - running_since;
        if (running != NULL && seconds > harness_scaled(running_limit)) {
            printf("not ok %s\n    %s: still running after %.0f s\n", running->name, running->file,
                   seconds);
            if (failed) {
                printf("    %s\n", failure);
            }
            fflush(stdout);
            abort();
        }
        harness_unlock();
    }
    return NULL;
}

static void call_hooks(enum harness_phase phase) {
    for (size_t i = 0; i < hooks_length; i++) {
        hooks[i](phase, harness_failed());
    }
}

/* False if a thread of the case cannot be ended, so that nothing more can be said. */
static bool clear_up(void) {
    if (harness_failed()) {
        harness_lock();
        for (struct gate *gate = gates; gate != NULL; gate = gate->next) {
            gate->open = true;
        }
        harness_unlock();
    }
    call_hooks(HARNESS_STOP);
    for (struct thread *thread = threads; thread != NULL; thread = thread->next) {
        if (!try_join(thread, WAIT_SECONDS)) {
            harness_fail(running->file, 0, running->name, "a thread of the case did not end");
            return false;
        }
    }
    call_hooks(HARNESS_CLEAR);
    bool keep = harness_failed(); /* A late callback may still use what the case owned. */
    threads = NULL;
    gates = NULL;
    while (blocks != NULL) {
        struct block *next = blocks->next;
        if (!keep) {
            free(blocks);
        }
        blocks = next;
    }
    return true;
}

/* Whether the next case can run. */
static bool run_case(struct harness_case *entry, unsigned *passed, unsigned *unpassed) {
    harness_lock();
    failed = false;
    running = entry;
    running_since = harness_now();
    running_limit = CASE_SECONDS;
    harness_unlock();
    if (setjmp(leave_case) == 0) {
        role = ROLE_CASE;
        entry->run();
    }
    role = ROLE_FOREIGN;
    bool go_on = clear_up();
    harness_lock();
    if (failed) {
        printf("not ok %s\n    %s\n", entry->name, failure);
        ++*unpassed;
    } else {
        printf("ok %s\n", entry->name);
        ++*passed;
    }
    double seconds = harness_now() - running_since;
    if (seconds > 5) {
        printf("# %s took %.1f s\n", entry->name, seconds);
    }
    running = NULL;
    harness_unlock();
    return go_on;
}

static bool chosen(const struct harness_case *entry, int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        if (strstr(entry->name, argv[i]) != NULL) {
            return true;
        }
    }
    return argc <= 1;
}

static bool names_are_unique(void) {
    bool result = true;
    for (struct harness_case *one = cases; one != NULL; one = one->next) {
        for (struct harness_case *other = one->next; other != NULL; other = other->next) {
            if (strcmp(one->name, other->name) == 0) {
                printf("not ok %s\n    in %s and in %s\n", one->name, one->file, other->file);
                result = false;
            }
        }
    }
    return result;
}

int main(int argc, char **argv) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    const char *factor = getenv("CHANNEL_LAYER_TEST_SLOWDOWN");
    if (factor != NULL && atof(factor) > 0) {
        slowdown = atof(factor);
    }
    prepare_lock();
    if (argc >= 3 && strcmp(argv[1], "--child") == 0) {
        for (size_t i = 0; i < children_length; i++) {
            if (strcmp(children[i].name, argv[2]) == 0) {
                return children[i].run(argc - 3, argv + 3);
            }
        }
        fprintf(stderr, "no child '%s'\n", argv[2]);
        return 2;
    }
    if (argc == 2 && strcmp(argv[1], "--list") == 0) {
        for (struct harness_case *entry = cases; entry != NULL; entry = entry->next) {
            puts(entry->name);
        }
        return 0;
    }

    unsigned passed = 0, unpassed = 0;
    pthread_t watchdog;
    if (!names_are_unique() || pthread_create(&watchdog, NULL, watch, NULL) != 0) {
        return 1;
    }
    for (struct harness_case *entry = cases; entry != NULL; entry = entry->next) {
        if (!chosen(entry, argc, argv)) {
            continue;
        }
        const char *reason = entry->skip == NULL ? NULL : entry->skip();
        if (reason != NULL) {
            printf("skip %s (%s)\n", entry->name, reason);
        } else if (!run_case(entry, &passed, &unpassed)) {
            break;
        }
    }
    if (passed + unpassed == 0) {
        printf("no case ran\n");
    }
    printf("%u passed, %u failed\n", passed, unpassed);
    fflush(stdout);
    if (unpassed > 0) {
        _Exit(1); /* Not through exit(): threads that were given up may still run. */
    }
    return passed == 0;
}
