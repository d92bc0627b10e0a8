/*
 * Messages to a group, on the broker, and their callbacks: on many members in this process, or on
 * one member in each of several processes.
 *
 *     layer_broadcast [members=N | processes=N] [in_flight=N] [seconds=S] [warmup=S]
 *
 * One layer sends and others receive. `in_flight` messages are on their way at once; one is through
 * when its last member has it. Only what is through counts.
 */

#include "layer.h"

#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

#define GROUP "bench"
#define PROCESSES 64

/* What the receiving processes tell the sending one, in memory that they share. With `members`,
 * there is one entry, and this process writes it. */
typedef struct {
    alignas(64) _Atomic uint64_t received;
    _Atomic bool ready;
    clockid_t clock;
} share_t;

typedef struct {
    share_t *share;
    uint64_t expected; /* the number of the next message */
} member_t;

static int32_t on_message(void *userdata, layer_status_t status, const layer_message_t *message) {
    member_t *member = userdata;
    if (status != LAYER_OK) {
        return LAYER_STOP;
    }
    size_t length;
    const uint8_t *data = layer_message_data(message, &length);
    uint64_t seq = bench_read_seq(data, length);
    if (seq != member->expected) {
        bench_fail("message %llu arrived where %llu was due", (unsigned long long)seq,
                   (unsigned long long)member->expected);
    }
    member->expected++;
    /* One thread of each process runs all its callbacks. */
    _Atomic uint64_t *received = &member->share->received;
    atomic_store_explicit(received, atomic_load_explicit(received, memory_order_relaxed) + 1,
                          memory_order_release);
    return LAYER_CONTINUE;
}

static layer_t *open_with_members(const char *url, uint64_t members, share_t *share) {
    layer_config_t *config = new_config(url);
    set_number(config, "prefetch_count", 1000);
    /* Deliveries count once for each member. */
    set_number(config, "local_capacity", 1000000);
    layer_t *layer = open_layer(config);
    member_t *all = bench_allocate(members * sizeof *all);
    for (uint64_t i = 0; i < members; i++) {
        char channel[LAYER_NAME_SIZE];
        layer_error_t *error = NULL;
        all[i].share = share;
        new_channel(layer, channel);
        check(layer_receive(layer, channel, on_message, &all[i], NULL, NULL, &error), &error,
              "layer_receive");
        check(layer_group_add(layer, GROUP, channel, &error), &error, "layer_group_add");
    }
    return layer;
}

static void be_a_receiver(const char *url, share_t *share) {
    (void)open_with_members(url, 1, share);
    atomic_store(&share->ready, true);
    for (;;) {
        pause(); /* until the parent ends us */
    }
}

static void on_done(void *userdata, layer_status_t status, const layer_error_t *error) {
    (void)userdata;
    if (status != LAYER_OK) {
        bench_fail("%s: %s", layer_status_name(status), layer_error_message(error));
    }
}

static uint64_t total(share_t *shares, uint64_t count) {
    uint64_t sum = 0;
    for (uint64_t i = 0; i < count; i++) {
        sum += atomic_load_explicit(&shares[i].received, memory_order_acquire);
    }
    return sum;
}

static int64_t cpu_of_all(const share_t *shares, uint64_t processes) {
    int64_t cpu = bench_clock(CLOCK_PROCESS_CPUTIME_ID);
    for (uint64_t i = 0; i < processes; i++) {
        cpu += bench_clock(shares[i].clock);
    }
    return cpu;
}

int main(int argc, char **argv) {
    (void)argc;
    bench_begin(argv);
    const char *url = bench_url();
    uint64_t members = bench_count("members", 1), processes = bench_count("processes", 0);
    uint64_t in_flight = bench_count("in_flight", 1);
    double seconds = bench_number("seconds", 3), warmup = bench_number("warmup", 1);
    bench_no_more_arguments();
    if (members == 0 || processes > PROCESSES || in_flight == 0) {
        bench_fail("members, processes (to %d) or in_flight cannot be so", PROCESSES);
    }
    bench_bound(seconds + warmup + 60);

    uint64_t count = processes == 0 ? 1 : processes;
    share_t *shares = mmap(NULL, count * sizeof *shares, PROT_READ | PROT_WRITE,
                           MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shares == MAP_FAILED) {
        bench_fail("cannot share memory: %s", strerror(errno));
    }
    pid_t children[PROCESSES];
    layer_t *receiving = NULL;
    if (processes == 0) {
        receiving = open_with_members(url, members, &shares[0]);
    }
    for (uint64_t i = 0; i < processes; i++) {
        /* Before this process opens a layer of its own. */
        pid_t parent = getpid();
        children[i] = fork();
        if (children[i] == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            if (getppid() == parent) {
                be_a_receiver(url, &shares[i]);
            }
            _exit(1);
        }
        if (children[i] < 0 || clock_getcpuclockid(children[i], &shares[i].clock) != 0) {
            bench_fail("cannot start a process");
        }
    }
    for (uint64_t i = 0; i < processes; i++) {
        while (!atomic_load(&shares[i].ready)) {
            if (waitpid(children[i], NULL, WNOHANG) != 0) {
                bench_fail("a receiving process has ended");
            }
            bench_sleep(0.001);
        }
    }

    layer_t *sending = open_layer(new_config(url));
    uint64_t each = processes == 0 ? members : processes; /* deliveries of a message */
    uint8_t body[BENCH_BODY];
    bench_body(body, sizeof body);
    void *seq_at = bench_find_seq(body, sizeof body);
    int64_t start = bench_now();
    int64_t begin = start + (int64_t)(warmup * 1e9), end = begin + (int64_t)(seconds * 1e9);
    int64_t cpu = 0, measured_from = 0, last = 0;
    uint64_t seq = 0, first = 0;
    /* At least one message is measured, however long it takes. */
    for (;;) {
        uint64_t through = total(shares, count) / each;
        int64_t now = bench_now();
        if (measured_from == 0 && now >= begin && through > 0) {
            measured_from = now;
            first = total(shares, count);
            cpu = cpu_of_all(shares, processes);
        }
        if (measured_from != 0 && now >= end && total(shares, count) >= first + each) {
            last = total(shares, count);
            cpu = cpu_of_all(shares, processes) - cpu;
            end = now;
            break;
        }
        if (seq - through >= in_flight) {
            /* Not a busy loop, which would take a processor from those that work. */
            usleep(each >= 10000 ? 500 : 50);
            continue;
        }
        bench_write_seq(seq_at, seq++);
        layer_error_t *error = NULL;
        check(
            layer_group_send_async(sending, GROUP, body, sizeof body, on_done, NULL, NULL, &error),
            &error, "layer_group_send_async");
    }
    while (total(shares, count) < seq * each) { /* what is on its way arrives, or we are ended */
        bench_sleep(0.001);
    }
    for (uint64_t i = 0; i < processes; i++) {
        int status;
        if (atomic_load(&shares[i].received) != seq ||
            waitpid(children[i], &status, WNOHANG) != 0) {
            bench_fail("a receiving process missed messages, or has ended");
        }
        kill(children[i], SIGKILL);
        waitpid(children[i], &status, 0);
    }
    double took = (double)(end - measured_from) / 1e9, deliveries = (double)(last - first);
    printf("{\"seconds\": %.3f, \"deliveries\": %.0f, \"per_second\": %.1f, "
           "\"per_cpu_second\": %.1f, \"messages_per_second\": %.2f}\n",
           took, deliveries, deliveries / took, deliveries / ((double)cpu / 1e9),
           deliveries / (double)each / took);
    layer_free(sending);
    layer_free(receiving);
    return fflush(stdout) == 0 ? 0 : 1;
}
