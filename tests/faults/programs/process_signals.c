/*
 * A host with handlers of its own for signals that come all the time: process_signals HOST SECONDS
 * [WAY]. It sends, receives, polls and joins groups meanwhile. With WAY `cut` it then loses its
 * connections; with `kill` it says so, waits for a line on its standard input, and the broker must
 * have been killed and be back.
 */
#include "process.h"

#include <sys/prctl.h>
#include <sys/time.h>

#define PULL_MS 200

static const int HANDLED[] = {SIGINT, SIGCHLD, SIGALRM, SIGPROF};
#define SIGNALS (sizeof HANDLED / sizeof *HANDLED)

/* Set on the threads of the host. */
static _Thread_local volatile sig_atomic_t ours;
static atomic_llong on_ours[NSIG], on_others[NSIG];
/* The thread that took the first signal that was none of its business. */
static char stray[16];

static void on_signal(int number) {
    int saved = errno;
    atomic_fetch_add(ours ? &on_ours[number] : &on_others[number], 1);
    if (!ours && number != SIGPROF && *stray == '\0') {
        prctl(PR_GET_NAME, stray);
    }
    if (number == SIGCHLD) {
        while (waitpid(-1, NULL, WNOHANG) > 0) {
        }
    }
    errno = saved;
}

static void handle(int flags) {
    for (size_t i = 0; i < SIGNALS; i++) {
        struct sigaction action = {.sa_handler = on_signal, .sa_flags = flags};
        sigemptyset(&action.sa_mask);
        MUST_BE(sigaction(HANDLED[i], &action, NULL) == 0);
    }
}

static void block(int how) {
    sigset_t handled;
    sigemptyset(&handled);
    for (size_t i = 0; i < SIGNALS; i++) {
        sigaddset(&handled, HANDLED[i]);
    }
    MUST_BE(pthread_sigmask(how, &handled, NULL) == 0);
}

/* A thread of the host takes signals once it is known as one. */
static void be_ours(void) {
    ours = 1;
    block(SIG_UNBLOCK);
}

static void tick(int which, int microseconds) {
    struct itimerval timer = {{0, microseconds}, {0, microseconds}};
    MUST_BE(setitimer(which, &timer, NULL) == 0);
}

/* --- The load -------------------------------------------------------------------------------- */

static layer_t *layer, *polled;
static char channel[LAYER_NAME_SIZE], polled_channel[LAYER_NAME_SIZE], quiet[LAYER_NAME_SIZE];
static atomic_bool stop, broker_is_down;
static atomic_llong calls, failed, failed_while_down, received, early, late, pulls;
static atomic_llong joined, polled_received;
static atomic_int first_failed;
static double latest;

static void note(layer_status_t status) {
    int none = LAYER_OK;
    atomic_fetch_add(&calls, 1);
    if (status == LAYER_OK) {
        return;
    }
    /* What it gives while there is no broker, and until a call that began then has ended. */
    if (atomic_load(&broker_is_down)) {
        atomic_fetch_add(&failed_while_down, 1);
        return;
    }
    atomic_compare_exchange_strong(&first_failed, &none, status);
    atomic_fetch_add(&failed, 1);
}

static int32_t on_message(void *userdata, layer_status_t status, const layer_message_t *message) {
    (void)message;
    atomic_fetch_add((atomic_llong *)userdata, status == LAYER_OK);
    return LAYER_CONTINUE;
}

static void *send_on(void *unused) {
    (void)unused;
    be_ours();
    for (int64_t i = 0; !atomic_load(&stop); i++) {
        note(send_number(layer, i % 2 ? channel : polled_channel, i, NULL));
    }
    return NULL;
}

static void *pull_on(void *unused) {
    (void)unused;
    be_ours();
    while (!atomic_load(&stop)) {
        layer_message_t *message;
        double began = now();
        layer_status_t status = layer_receive_next(layer, quiet, PULL_MS, &message, NULL);
        double took = now() - began;
        note(status == LAYER_TIMEOUT ? LAYER_OK : LAYER_INTERNAL);
        atomic_fetch_add(&pulls, 1);
        atomic_fetch_add(&early, took < PULL_MS * 1e-3);
        atomic_fetch_add(&late, took > PULL_MS * 1e-3 + 1);
        latest = took > latest ? took : latest;
    }
    return NULL;
}

static void *poll_on(void *unused) {
    (void)unused;
    be_ours();
    while (!atomic_load(&stop)) {
        note(layer_poll(polled, 0, PULL_MS, NULL, NULL));
    }
    return NULL;
}

static void *join_on(void *unused) {
    (void)unused;
    be_ours();
    for (int i = 0; !atomic_load(&stop); i++) {
        char group[32];
        snprintf(group, sizeof group, "signals%d", i % 10);
        note(layer_group_add(layer, group, channel, NULL));
        note(layer_group_discard(layer, group, channel, NULL));
        atomic_fetch_add(&joined, 1);
    }
    return NULL;
}

static pthread_t load[5];

/* Signals for the process, for each thread of the load, and from children that end. */
static void *signal_on(void *unused) {
    (void)unused;
    be_ours();
    for (int i = 0; !atomic_load(&stop); i++) {
        kill(getpid(), SIGINT);
        pthread_kill(load[i % 5], SIGALRM);
        if (i % 50 == 0 && fork() == 0) {
            _exit(0);
        }
        pause_for(0.0005);
    }
    return NULL;
}

/* --- The run --------------------------------------------------------------------------------- */

static void load_for(const char *what, double seconds) {
    long long before = atomic_load(&calls), ticks[NSIG];
    for (size_t i = 0; i < SIGNALS; i++) {
        ticks[HANDLED[i]] = atomic_load(&on_ours[HANDLED[i]]);
    }
    pause_for(seconds);
    char text[256] = "";
    bool each = true;
    for (size_t i = 0; i < SIGNALS - 1; i++) { /* SIGPROF comes later. */
        long long count = atomic_load(&on_ours[HANDLED[i]]) - ticks[HANDLED[i]];
        each &= count > 0;
        snprintf(text + strlen(text), sizeof text - strlen(text), ", %s %lld",
                 sigabbrev_np(HANDLED[i]), count);
    }
    check(what, each && atomic_load(&calls) > before && atomic_load(&failed) == 0,
          "%lld calls, %lld failed (%s)%s", atomic_load(&calls) - before,
          (long long)atomic_load(&failed), layer_status_name(atomic_load(&first_failed)), text);
}

/* How many dispositions are not as they were. */
static int changed(const struct sigaction *before) {
    int count = 0;
    for (int number = 1; number < NSIG; number++) {
        struct sigaction action;
        if (sigaction(number, NULL, &action) == 0) {
            count += action.sa_handler != before[number].sa_handler ||
                     action.sa_flags != before[number].sa_flags;
        }
    }
    return count;
}

int main(int argc, char **argv) {
    MUST_BE(argc == 3 || argc == 4);
    const char *host = argv[1];
    double seconds = atof(argv[2]);
    /* A long run also meets the moments in which the whole machine stands still. */
    const char *timeout = seconds < 2 ? "2" : "10";
    static struct sigaction before[NSIG];
    sigset_t mask, mask_after;
    char line[64];
    ours = 1;
    signal(SIGPIPE, SIG_DFL); /* Python, which starts this, ignores it. */
    handle(SA_RESTART);
    for (int number = 1; number < NSIG; number++) {
        sigaction(number, NULL, &before[number]);
    }
    pthread_sigmask(SIG_SETMASK, NULL, &mask);

    /* Room for what comes while a thread that receives has to wait for its turn. */
    layer = open_layer(host, "timeout", timeout, "remote_capacity", "100000", NULL);
    polled = open_layer(host, "dispatch", "poll", "remote_capacity", "100000", NULL);
    MUST(layer_new_channel(layer, NULL, channel, sizeof channel, ERROR));
    MUST(layer_new_channel(layer, NULL, quiet, sizeof quiet, ERROR));
    MUST(layer_new_channel(polled, NULL, polled_channel, sizeof polled_channel, ERROR));
    MUST(layer_receive(layer, channel, on_message, &received, NULL, NULL, ERROR));
    MUST(layer_receive(polled, polled_channel, on_message, &polled_received, NULL, NULL, ERROR));
    block(SIG_BLOCK); /* For the threads that are started. */
    load[0] = start(send_on, NULL);
    load[1] = start(send_on, NULL);
    load[2] = start(pull_on, NULL);
    load[3] = start(poll_on, NULL);
    load[4] = start(join_on, NULL);
    pthread_t signaller = start(signal_on, NULL);
    block(SIG_UNBLOCK);

    tick(ITIMER_REAL, 1000);
    load_for("with SA_RESTART no call notices the signals", seconds);
    MUST_BE(changed(before) == 0);
    handle(0);
    load_for("without SA_RESTART no call notices the signals", seconds);
    handle(SA_RESTART);
    check("a wait is neither cut short nor drawn out by signals",
          atomic_load(&early) == 0 && atomic_load(&late) == 0 && atomic_load(&pulls) > 0,
          "%lld waits of %d ms, the longest %.0f ms", (long long)atomic_load(&pulls), PULL_MS,
          latest * 1e3);
    long long strays = 0, taken = 0;
    for (size_t i = 0; i < SIGNALS - 1; i++) {
        strays += atomic_load(&on_others[HANDLED[i]]);
        taken += atomic_load(&on_ours[HANDLED[i]]);
    }
    check("all signals are delivered on the host's threads", strays == 0 && taken > 0,
          "%lld on the host's, %lld on others %s", taken, strays, stray);

    tick(ITIMER_PROF, 1000);
    pause_for(seconds);
    /* The library may have used less than a tick of processor time. */
    (void)WAIT(atomic_load(&on_others[SIGPROF]) > 0, 60);
    tick(ITIMER_PROF, 0);
    check("a profiler by SIGPROF sees the library's threads too",
          atomic_load(&on_others[SIGPROF]) > 0 && atomic_load(&failed) == 0,
          "%lld samples on the host's threads, %lld on the library's; %lld calls failed (%s)",
          (long long)atomic_load(&on_ours[SIGPROF]), (long long)atomic_load(&on_others[SIGPROF]),
          (long long)atomic_load(&failed), layer_status_name(atomic_load(&first_failed)));

    if (argc == 4) {
        atomic_store(&broker_is_down, true);
        if (strcmp(argv[3], "cut") == 0) {
            MUST_BE(cut_connections() > 0);
        } else {
            printf("kill\n");
            fflush(stdout);
            while (fgets(line, sizeof line, stdin) == NULL) { /* A signal may interrupt it. */
                MUST_BE(errno == EINTR && !feof(stdin));
                clearerr(stdin);
            }
        }
        /* Sends that wait for the next connection need not fail. */
        bool lost = WAIT(stat_of(layer, LAYER_STAT_GENERATION) > 1, 60);
        check("with SIGPIPE at its default the host outlives a broker that is lost under load",
              lost, "%llu connections, %lld calls failed",
              (unsigned long long)stat_of(layer, LAYER_STAT_GENERATION),
              (long long)atomic_load(&failed_while_down));
        MUST(layer_wait_ready(layer, 60000, ERROR));
        MUST(layer_wait_ready(polled, 60000, ERROR));
        pause_for(atof(timeout) + 0.5); /* Calls that began before have ended by then. */
        long long got = atomic_load(&received);
        atomic_store(&broker_is_down, false);
        load_for("once the broker is back, no call notices the signals", seconds);
        check("messages come again", WAIT(atomic_load(&received) > got, 20), "%lld of them",
              atomic_load(&received) - got);
    }

    atomic_store(&stop, true);
    for (size_t i = 0; i < sizeof load / sizeof *load; i++) {
        pthread_join(load[i], NULL);
    }
    pthread_join(signaller, NULL);
    MUST(layer_close(layer, 10000, ERROR));
    tick(ITIMER_REAL, 0);
    layer_free(layer);
    layer_free(polled);
    pthread_sigmask(SIG_SETMASK, NULL, &mask_after);
    check("no disposition and no mask of the host has changed",
          changed(before) == 0 && memcmp(&mask, &mask_after, sizeof mask) == 0,
          "%d dispositions changed", changed(before));
    check("messages came all the time",
          atomic_load(&received) > 0 && atomic_load(&polled_received) > 0 &&
              atomic_load(&joined) > 0,
          "%lld by thread, %lld by poll, %lld groups joined and left",
          (long long)atomic_load(&received), (long long)atomic_load(&polled_received),
          (long long)atomic_load(&joined));
    return 0;
}
