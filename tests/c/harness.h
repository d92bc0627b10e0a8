/*
 * A small test harness: cases by name, failures with their place and what was seen, waiting for
 * events, threads and gates that never hang, and a watchdog. It knows nothing of the library under
 * test. To be included first, since it asks for the GNU names of the system's headers.
 *
 * Environment: CHANNEL_LAYER_TEST_SLOWDOWN multiplies every time limit (valgrind, sanitizers).
 */
#ifndef HARNESS_H
#define HARNESS_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

/* --- Cases ----------------------------------------------------------------------------------- */

struct harness_case {
    const char *name;
    const char *file;
    void (*run)(void);
    const char *(*skip)(void);
    struct harness_case *next;
};

void harness_register(struct harness_case *entry);

/* CASE_WHEN(name, skip) { body }: `skip()` says why the case does not apply here, or NULL. */
#define CASE_WHEN(case_name, skip_function)                                                        \
    static void case_##case_name(void);                                                            \
    __attribute__((constructor)) static void register_##case_name(void) {                          \
        static struct harness_case entry = {#case_name, __FILE__, case_##case_name, skip_function, \
                                            NULL};                                                 \
        harness_register(&entry);                                                                  \
    }                                                                                              \
    static void case_##case_name(void)

/* CASE(name) { body } */
#define CASE(case_name) CASE_WHEN(case_name, NULL)

/* A function that a second process runs: `PROGRAM --child NAME ARGUMENT...`; gives its status. */
typedef int (*harness_child)(int argc, char **argv);
void harness_register_child(const char *name, harness_child run);

#define CHILD(child_name)                                                                          \
    static int child_##child_name(int argc, char **argv);                                          \
    __attribute__((constructor)) static void register_child_##child_name(void) {                   \
        harness_register_child(#child_name, child_##child_name);                                   \
    }                                                                                              \
    static int child_##child_name(int argc, char **argv)

/* Called after each case, before (`HARNESS_STOP`) and after (`HARNESS_CLEAR`) its threads are
 * joined. With `failed`, the case was left in its middle. */
enum harness_phase { HARNESS_STOP, HARNESS_CLEAR };
void harness_after_case(void (*hook)(enum harness_phase phase, bool failed));

/* The watchdog's limit of the running case, in place of 60 s. */
void harness_limit(double seconds);

/* A line of the report that is no result, such as a measured number. */
void harness_note(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* --- Failures -------------------------------------------------------------------------------- */

/* Keeps the first failure of a case; callable from any thread. */
void harness_fail(const char *file, int line, const char *what, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* Leaves the case, or the thread made by `spawn`. Does nothing on a thread of the library and
 * inside a callback, which must return. */
void harness_leave(void);

/* Whether the running case has failed already. */
bool harness_failed(void);

/* To be called around the body of each callback, so that no failure jumps out of it. */
void harness_enter_callback(void);
void harness_leave_callback(void);

/* In a case or a thread of its own: a failure ends it. */
#define CHECK(condition, ...)                                                                      \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            harness_fail(__FILE__, __LINE__, #condition, __VA_ARGS__);                             \
            harness_leave();                                                                       \
        }                                                                                          \
    } while (0)

/* In a callback: a failure is kept, and the callback goes on. */
#define EXPECT(condition, ...)                                                                     \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            harness_fail(__FILE__, __LINE__, #condition, __VA_ARGS__);                             \
        }                                                                                          \
    } while (0)

/* --- Waiting --------------------------------------------------------------------------------- */

/* One lock for all that callbacks and cases share; recursive. Leaving it wakes who waits. */
void harness_lock(void);
void harness_unlock(void);

/* Seconds of a clock that only goes forward. */
double harness_now(void);

/* `seconds`, times the slowdown. */
double harness_scaled(double seconds);

/* Waits for a change until `deadline` (of harness_now), with the lock held once: false if late. */
bool harness_wait(double deadline);

/* How long an event may take that is sure to come. */
#define WAIT_SECONDS 20.0

/* Waits for a condition on what harness_lock protects. The rest says what was seen instead. */
#define WAIT_FOR(condition, ...)                                                                   \
    do {                                                                                           \
        double deadline_ = harness_now() + harness_scaled(WAIT_SECONDS);                           \
        bool met_, in_time_ = true;                                                                \
        harness_lock();                                                                            \
        while (!(met_ = (condition)) && in_time_) {                                                \
            in_time_ = harness_wait(deadline_);                                                    \
        }                                                                                          \
        if (!met_) {                                                                               \
            harness_fail(__FILE__, __LINE__, "waited for " #condition, __VA_ARGS__);               \
        }                                                                                          \
        harness_unlock();                                                                          \
        if (!met_) {                                                                               \
            harness_leave();                                                                       \
        }                                                                                          \
    } while (0)

/* Lets `seconds` pass: only for pacing and for what must NOT happen meanwhile. */
void harness_pause(double seconds);

/* --- What a case owns ------------------------------------------------------------------------ */

/* Memory that lives as long as the case, zeroed. */
void *case_alloc(size_t size);

/* `prefix` and random letters: a name that no other case and no other run has. */
const char *unique(const char *prefix);

/* printf into memory of the case. */
const char *text(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* A thread of the case. It may CHECK. */
struct thread;
struct thread *spawn(void (*run)(void *argument), void *argument);

/* Waits for its end, which must come within `seconds`. */
void join_within(struct thread *thread, double seconds);
void join(struct thread *thread);
bool thread_ended(struct thread *thread);

/* A gate is shut until it is opened. The end of a case that failed opens it. */
struct gate;
struct gate *gate_new(void);
void gate_open(struct gate *gate);
bool gate_is_open(struct gate *gate);
/* In a callback too: a wait that takes too long is a failure. */
#define GATE_WAIT(gate) gate_wait_at(__FILE__, __LINE__, gate)
void gate_wait_at(const char *file, int line, struct gate *gate);

#endif
