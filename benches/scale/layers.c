/*
 * Holds layers in one process for the scale rig, and does what it is told: one command a line on
 * stdin, one line of JSON on stdout for each. rig.py starts a few of these processes, so that it
 * can measure their processor time apart from the broker's.
 *
 *     layers=K first=I groups=G     K layers, numbered from I among all processes, G groups each
 *
 *     open                          opens all layers at once, until all are ready
 *     join FROM TO                  each layer joins its groups FROM to TO - 1, until all are bound
 *     bound                         how many groups the broker routes
 *     churn RATE SECONDS            in turn, a layer joins a group and leaves an earlier one
 *     listen                        from now on messages are counted, each layer from 0
 *     broadcast COUNT RATE          one layer sends to the group of all; RATE 0: as fast as
 * confirmed touch COUNT                   each layer sends a message to COUNT groups of its own
 *     probe                         one message to the group of all, whatever comes of it
 *     heard COUNT SECONDS           until each layer has heard COUNT messages
 *     cut                           shuts all connections down
 *     ready SINCE SECONDS           until each layer is ready, since the time SINCE if above 0
 *     down                          the longest that a layer was not ready, since this was last
 * asked close                         closes all layers, and ends
 *
 * All times are of CLOCK_MONOTONIC in nanoseconds, which the processes of a machine share: a
 * message carries when it was due.
 */

#include "../programs/layer.h"

#include <dirent.h>
#include <inttypes.h>
#include <sys/socket.h>

/* Every tenth group has its name in all layers; the first of them is the group of all. */
#define SHARED_EVERY 10
#define GROUP_OF_ALL "scale-shared-0"
/* Broadcasts that wait for their confirm, at most, where they are not paced. */
#define WINDOW 100
/* For each call: what is slow is measured, not given up. */
#define TIMEOUT_S 300

typedef struct {
    layer_t *layer;
    uint64_t number; /* among all processes */
    char channel[LAYER_NAME_SIZE];
    /* The rest under the mutex. */
    uint64_t heard;
    int64_t last_heard;
    bool ready;
    int64_t ready_at, lost_at; /* the last time of each, or 0 */
    int64_t longest;           /* that it was not ready, since that was last told */
} member_t;

static member_t *members;
static uint64_t count, groups, joined, churned;

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed;

/* Under the mutex, too. */
static uint64_t done;
static int64_t listening_since = INT64_MAX;
static bench_samples_t heard_after, done_after;

static void lock(void) { pthread_mutex_lock(&mutex); }

static void unlock(void) { pthread_mutex_unlock(&mutex); }

/* --- waiting ------------------------------------------------------------------------------ */

/* Under the mutex: until `condition` holds, at most until `deadline`. */
static bool wait_until(bool (*condition)(uint64_t), uint64_t argument, int64_t deadline) {
    struct timespec until = {deadline / 1000000000, deadline % 1000000000};
    while (!condition(argument)) {
        if (pthread_cond_timedwait(&changed, &mutex, &until) == ETIMEDOUT) {
            return condition(argument);
        }
    }
    return true;
}

static int64_t in_seconds(double seconds) { return bench_now() + (int64_t)(seconds * 1e9); }

static bool are_done(uint64_t wanted) { return done >= wanted; }

static bool all_have_heard(uint64_t wanted) {
    for (uint64_t i = 0; i < count; i++) {
        if (members[i].heard < wanted) {
            return false;
        }
    }
    return true;
}

static bool all_are_ready(uint64_t since) {
    for (uint64_t i = 0; i < count; i++) {
        if (!members[i].ready || members[i].ready_at < (int64_t)since) {
            return false;
        }
    }
    return true;
}

/* Until `wanted` calls have ended. Each ends within its timeout. */
static void wait_done(uint64_t wanted) {
    lock();
    if (!wait_until(are_done, wanted, in_seconds(TIMEOUT_S + 30))) {
        bench_fail("%" PRIu64 " of %" PRIu64 " calls have ended", done, wanted);
    }
    unlock();
}

static uint64_t bound(const member_t *member) {
    layer_error_t *error = NULL;
    uint64_t value;
    check(layer_stat(member->layer, LAYER_STAT_GROUPS_BOUND, &value, &error), &error, "layer_stat");
    return value;
}

/* Until the broker routes `wanted` groups to each layer. */
static void wait_bound(uint64_t wanted) {
    int64_t deadline = in_seconds(TIMEOUT_S);
    for (uint64_t i = 0; i < count; i++) {
        while (bound(&members[i]) != wanted) {
            if (bench_now() > deadline) {
                bench_fail("%" PRIu64 " groups of layer %" PRIu64 " are bound, not %" PRIu64,
                           bound(&members[i]), members[i].number, wanted);
            }
            bench_sleep(0.001);
        }
    }
}

/* --- callbacks ---------------------------------------------------------------------------- */

/* `userdata` is when the call was due. */
static void on_done(void *userdata, layer_status_t status, const layer_error_t *error) {
    int64_t now = bench_now();
    if (status != LAYER_OK) {
        bench_fail("a call failed: %s: %s", layer_status_name(status), layer_error_message(error));
    }
    lock();
    done++;
    bench_sample(&done_after, now - (int64_t)(intptr_t)userdata);
    pthread_cond_broadcast(&changed);
    unlock();
}

static int32_t on_message(void *userdata, layer_status_t status, const layer_message_t *message) {
    member_t *member = userdata;
    if (status != LAYER_OK) {
        return LAYER_CONTINUE; /* the layer is closed */
    }
    int64_t now = bench_now();
    size_t length;
    const uint8_t *data = layer_message_data(message, &length);
    int64_t due = (int64_t)bench_read_seq(data, length);
    lock();
    if (due >= listening_since) {
        member->heard++;
        member->last_heard = now;
        bench_sample(&heard_after, now - due);
        pthread_cond_broadcast(&changed);
    }
    unlock();
    return LAYER_CONTINUE;
}

static void on_state(void *userdata, layer_state_t state, uint64_t generation) {
    member_t *member = userdata;
    (void)generation;
    lock();
    int64_t now = bench_now();
    bool was = member->ready;
    member->ready = state == LAYER_STATE_READY;
    if (was && !member->ready) {
        member->lost_at = now;
    } else if (!was && member->ready) {
        member->ready_at = now;
        if (member->lost_at > 0 && now - member->lost_at > member->longest) {
            member->longest = now - member->lost_at;
        }
    }
    pthread_cond_broadcast(&changed);
    unlock();
}

/* --- names and messages ------------------------------------------------------------------- */

static void name_of(char name[LAYER_NAME_SIZE], const member_t *member, uint64_t group) {
    if (group % SHARED_EVERY == 0) {
        snprintf(name, LAYER_NAME_SIZE, "scale-shared-%" PRIu64, group);
    } else {
        snprintf(name, LAYER_NAME_SIZE, "scale-own-%" PRIu64 "-%" PRIu64, member->number, group);
    }
}

static void send_async(const member_t *member, const char *group, int64_t due) {
    uint8_t body[BENCH_BODY];
    layer_error_t *error = NULL;
    bench_body(body, sizeof body);
    bench_write_seq(bench_find_seq(body, sizeof body), (uint64_t)due);
    check(layer_group_send_async(member->layer, group, body, sizeof body, on_done,
                                 (void *)(intptr_t)due, NULL, &error),
          &error, "layer_group_send_async");
}

/* --- figures ------------------------------------------------------------------------------ */

static void print_samples(const char *name, bench_samples_t *samples) {
    if (samples->count > 0) {
        qsort(samples->us, samples->count, sizeof *samples->us, bench_compare);
        printf(", \"%s_p50_ms\": %.3f, \"%s_p99_ms\": %.3f, \"%s_max_ms\": %.3f", name,
               bench_percentile(samples, 50) / 1e3, name, bench_percentile(samples, 99) / 1e3, name,
               samples->us[samples->count - 1] / 1e3);
    }
}

/* Forgets what ended before. */
static void begin(void) {
    lock();
    done = 0;
    done_after.count = 0;
    unlock();
}

static double seconds_since(int64_t start) { return (double)(bench_now() - start) / 1e9; }

/* --- commands ----------------------------------------------------------------------------- */

/* So that layers begin with different nodes: `hosts` from the `turn`-th on, then those before. */
static void rotate(char *rotated, size_t size, const char *hosts, uint64_t turn) {
    uint64_t nodes = 1;
    for (const char *at = hosts; *at != '\0'; at++) {
        nodes += *at == ',';
    }
    const char *start = hosts;
    for (uint64_t skipped = 0; skipped < turn % nodes; skipped++) {
        start = strchr(start, ',') + 1;
    }
    int length = snprintf(rotated, size, "%s%s%.*s", start, start == hosts ? "" : ",",
                          start == hosts ? 0 : (int)(start - hosts - 1), hosts);
    if (length < 0 || (size_t)length >= size) {
        bench_fail("the addresses of the nodes are too long");
    }
}

static void open_all(const char *hosts) {
    char rotated[4096];
    int64_t start = bench_now();
    for (uint64_t i = 0; i < count; i++) {
        member_t *member = &members[i];
        layer_error_t *error = NULL;
        rotate(rotated, sizeof rotated, hosts, member->number);
        layer_config_t *config = new_config(rotated);
        set_number(config, "prefetch_count", 1000);
        set_number(config, "timeout", TIMEOUT_S);
        check(layer_config_on_state(config, on_state, member, NULL, &error), &error, "on_state");
        check(layer_new(config, &member->layer, &error), &error, "layer_new");
        layer_config_free(config);
    }
    bench_samples_t ready_after = {0};
    lock();
    if (!wait_until(all_are_ready, 0, in_seconds(TIMEOUT_S))) {
        bench_fail("a layer is not ready after %d s", TIMEOUT_S);
    }
    for (uint64_t i = 0; i < count; i++) {
        bench_sample(&ready_after, members[i].ready_at - start);
    }
    unlock();
    double seconds = seconds_since(start);
    for (uint64_t i = 0; i < count; i++) {
        layer_error_t *error = NULL;
        new_channel(members[i].layer, members[i].channel);
        check(layer_receive(members[i].layer, members[i].channel, on_message, &members[i], NULL,
                            NULL, &error),
              &error, "layer_receive");
    }
    printf("{\"layers\": %" PRIu64 ", \"seconds\": %.3f", count, seconds);
    print_samples("ready", &ready_after);
    printf("}\n");
    free(ready_after.us);
}

static void join(uint64_t from, uint64_t to) {
    if (from != joined || to < from || to > groups) {
        bench_fail("join %" PRIu64 " %" PRIu64 ": %" PRIu64 " of %" PRIu64 " groups are joined",
                   from, to, joined, groups);
    }
    begin();
    int64_t start = bench_now();
    for (uint64_t group = from; group < to; group++) {
        for (uint64_t i = 0; i < count; i++) {
            char name[LAYER_NAME_SIZE];
            layer_error_t *error = NULL;
            name_of(name, &members[i], group);
            check(layer_group_add_async(members[i].layer, name, members[i].channel, on_done,
                                        (void *)(intptr_t)start, NULL, &error),
                  &error, "layer_group_add_async");
        }
    }
    wait_done((to - from) * count);
    joined = to;
    double seconds = seconds_since(start);
    wait_bound(joined);
    printf("{\"joins\": %" PRIu64 ", \"seconds\": %.3f}\n", (to - from) * count, seconds);
}

static void churn(double rate, double duration) {
    uint64_t steps = (uint64_t)(rate * duration);
    if (rate <= 0 || steps <= count) {
        bench_fail("churn: RATE times SECONDS is to be more than the number of layers");
    }
    begin();
    int64_t start = bench_now();
    char name[LAYER_NAME_SIZE];
    layer_error_t *error = NULL;
    for (uint64_t step = 0; step < steps; step++, churned++) {
        int64_t due = start + (int64_t)((double)step / rate * 1e9);
        bench_sleep((double)(due - bench_now()) / 1e9);
        const member_t *member = &members[step % count];
        snprintf(name, sizeof name, "scale-churn-%" PRIu64 "-%" PRIu64, member->number, churned);
        check(layer_group_add_async(member->layer, name, member->channel, on_done,
                                    (void *)(intptr_t)due, NULL, &error),
              &error, "layer_group_add_async");
        /* The group that this layer joined one turn ago; its last one goes below. */
        if (step >= count) {
            snprintf(name, sizeof name, "scale-churn-%" PRIu64 "-%" PRIu64, member->number,
                     churned - count);
            check(layer_group_discard(member->layer, name, member->channel, &error), &error,
                  "layer_group_discard");
        }
    }
    wait_done(steps);
    double seconds = seconds_since(start);
    for (uint64_t step = steps - count; step < steps; step++) {
        const member_t *member = &members[step % count];
        snprintf(name, sizeof name, "scale-churn-%" PRIu64 "-%" PRIu64, member->number,
                 churned - steps + step);
        check(layer_group_discard(member->layer, name, member->channel, &error), &error,
              "layer_group_discard");
    }
    wait_bound(joined);
    printf("{\"changes\": %" PRIu64 ", \"seconds\": %.3f", steps, seconds);
    lock();
    print_samples("join", &done_after);
    unlock();
    printf("}\n");
}

static void listen_now(void) {
    lock();
    listening_since = bench_now();
    heard_after.count = 0;
    for (uint64_t i = 0; i < count; i++) {
        members[i].heard = 0;
    }
    unlock();
    printf("{}\n");
}

static void broadcast(uint64_t messages, double rate) {
    begin();
    int64_t start = bench_now();
    for (uint64_t i = 0; i < messages; i++) {
        int64_t due = bench_now();
        if (rate > 0) {
            due = start + (int64_t)((double)i / rate * 1e9);
            bench_sleep((double)(due - bench_now()) / 1e9);
        } else if (i >= WINDOW) {
            wait_done(i - WINDOW + 1);
            due = bench_now();
        }
        send_async(&members[0], GROUP_OF_ALL, due);
    }
    wait_done(messages);
    printf("{\"broadcasts\": %" PRIu64 ", \"began\": %" PRId64 ", \"seconds\": %.3f", messages,
           start, seconds_since(start));
    lock();
    print_samples("confirmed", &done_after);
    unlock();
    printf("}\n");
}

static void touch(uint64_t messages) {
    uint64_t own = joined - (joined + SHARED_EVERY - 1) / SHARED_EVERY;
    if (messages == 0 || messages > own) {
        bench_fail("touch %" PRIu64 ": %" PRIu64 " groups of a layer are its own", messages, own);
    }
    begin();
    for (uint64_t i = 0; i < messages; i++) {
        /* The `nth` of those that are not shared, spread over all. */
        uint64_t nth = i * own / messages;
        uint64_t group = nth + nth / (SHARED_EVERY - 1) + 1;
        for (uint64_t each = 0; each < count; each++) {
            char name[LAYER_NAME_SIZE];
            name_of(name, &members[each], group);
            send_async(&members[each], name, bench_now());
        }
        if ((i + 1) % WINDOW == 0) {
            wait_done((i + 1) * count);
        }
    }
    wait_done(messages * count);
    printf("{\"messages\": %" PRIu64 "}\n", messages * count);
}

static void probe(void) {
    uint8_t body[BENCH_BODY];
    layer_error_t *error = NULL;
    bench_body(body, sizeof body);
    bench_write_seq(bench_find_seq(body, sizeof body), (uint64_t)bench_now());
    layer_status_t status =
        layer_group_send(members[0].layer, GROUP_OF_ALL, body, sizeof body, &error);
    layer_error_free(error);
    printf("{\"status\": \"%s\"}\n", layer_status_name(status));
}

static void heard(uint64_t wanted, double seconds) {
    lock();
    bool complete = wait_until(all_have_heard, wanted, in_seconds(seconds));
    uint64_t messages = 0, deaf = 0;
    int64_t last = 0;
    for (uint64_t i = 0; i < count; i++) {
        messages += members[i].heard;
        deaf += members[i].heard < wanted;
        last = members[i].last_heard > last ? members[i].last_heard : last;
    }
    printf("{\"complete\": %s, \"messages\": %" PRIu64 ", \"short\": %" PRIu64
           ", \"last\": %" PRId64,
           complete ? "true" : "false", messages, deaf, last);
    print_samples("heard", &heard_after);
    unlock();
    printf("}\n");
}

/* What a pulled cable does. All are found first, since the library opens others at once. */
static void cut(void) {
    DIR *open_files = opendir("/proc/self/fd");
    if (open_files == NULL) {
        bench_fail("/proc/self/fd: %s", strerror(errno));
    }
    int *found = bench_allocate((size_t)count * 8 * sizeof *found);
    uint64_t connections = 0;
    for (struct dirent *entry; (entry = readdir(open_files)) != NULL && connections < count * 8;) {
        struct sockaddr_storage peer;
        int fd = atoi(entry->d_name);
        socklen_t length = sizeof peer;
        if (getpeername(fd, (struct sockaddr *)&peer, &length) == 0 &&
            (peer.ss_family == AF_INET || peer.ss_family == AF_INET6)) {
            found[connections++] = fd;
        }
    }
    closedir(open_files);
    /* Copies, since the library closes its own once they are cut, and may use the numbers again. */
    for (uint64_t i = 0; i < connections; i++) {
        if ((found[i] = dup(found[i])) < 0) {
            bench_fail("dup: %s", strerror(errno));
        }
    }
    int64_t at = bench_now();
    for (uint64_t i = 0; i < connections; i++) {
        /* The other side may have closed it meanwhile. */
        if (shutdown(found[i], SHUT_RDWR) != 0 && errno != ENOTCONN) {
            bench_fail("shutdown: %s", strerror(errno));
        }
        close(found[i]);
    }
    free(found);
    if (connections < 2 * count) {
        bench_fail("%" PRIu64 " connections were found, and not two for each layer", connections);
    }
    printf("{\"connections\": %" PRIu64 ", \"at\": %" PRId64 "}\n", connections, at);
}

static void ready(uint64_t since, double seconds) {
    bench_samples_t after = {0};
    uint64_t are = 0;
    lock();
    bool complete = wait_until(all_are_ready, since, in_seconds(seconds));
    for (uint64_t i = 0; i < count; i++) {
        are += members[i].ready;
        if (complete && since > 0) {
            bench_sample(&after, members[i].ready_at - (int64_t)since);
        }
    }
    unlock();
    printf("{\"complete\": %s, \"ready\": %" PRIu64, complete ? "true" : "false", are);
    print_samples("ready", &after);
    printf("}\n");
    free(after.us);
}

static void down(void) {
    uint64_t lost = 0;
    int64_t longest = 0, last = 0;
    lock();
    for (uint64_t i = 0; i < count; i++) {
        member_t *member = &members[i];
        lost += member->longest > 0;
        longest = member->longest > longest ? member->longest : longest;
        last = member->longest > 0 && member->ready_at > last ? member->ready_at : last;
        member->longest = 0;
    }
    unlock();
    printf("{\"lost\": %" PRIu64 ", \"longest_ms\": %.3f, \"last_ready\": %" PRId64 "}\n", lost,
           (double)longest / 1e6, last);
}

static void close_all(void) {
    int64_t start = bench_now();
    for (uint64_t i = 0; i < count; i++) {
        layer_error_t *error = NULL;
        check(layer_close(members[i].layer, TIMEOUT_S * 1000, &error), &error, "layer_close");
        layer_free(members[i].layer);
    }
    printf("{\"seconds\": %.3f}\n", seconds_since(start));
}

/* Whether there is more to do. */
static bool obey(const char *line, const char *hosts) {
    char command[16] = "";
    double a = 0, b = 0;
    int words = sscanf(line, "%15s %lf %lf", command, &a, &b);
    if (words == 1 && strcmp(command, "open") == 0) {
        open_all(hosts);
    } else if (words == 3 && strcmp(command, "join") == 0) {
        join((uint64_t)a, (uint64_t)b);
    } else if (words == 1 && strcmp(command, "bound") == 0) {
        uint64_t all = 0;
        for (uint64_t i = 0; i < count; i++) {
            all += bound(&members[i]);
        }
        printf("{\"bound\": %" PRIu64 "}\n", all);
    } else if (words == 3 && strcmp(command, "churn") == 0) {
        churn(a, b);
    } else if (words == 1 && strcmp(command, "listen") == 0) {
        listen_now();
    } else if (words == 3 && strcmp(command, "broadcast") == 0) {
        broadcast((uint64_t)a, b);
    } else if (words == 2 && strcmp(command, "touch") == 0) {
        touch((uint64_t)a);
    } else if (words == 1 && strcmp(command, "probe") == 0) {
        probe();
    } else if (words == 3 && strcmp(command, "heard") == 0) {
        heard((uint64_t)a, b);
    } else if (words == 1 && strcmp(command, "cut") == 0) {
        cut();
    } else if (words == 3 && strcmp(command, "ready") == 0) {
        ready((uint64_t)a, b);
    } else if (words == 1 && strcmp(command, "down") == 0) {
        down();
    } else if (words == 1 && strcmp(command, "close") == 0) {
        close_all();
        return false;
    } else {
        bench_fail("there is no command %s", line);
    }
    return true;
}

int main(int argc, char **argv) {
    (void)argc;
    bench_begin(argv);
    const char *hosts = bench_url();
    count = bench_count("layers", 1);
    groups = bench_count("groups", 20);
    uint64_t first = bench_count("first", 0);
    bench_no_more_arguments();
    if (count == 0 || groups == 0) {
        bench_fail("layers and groups are at least 1");
    }
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&changed, &attributes);
    members = bench_allocate(count * sizeof *members);
    for (uint64_t i = 0; i < count; i++) {
        members[i].number = first + i;
    }
    char line[256];
    bool more = true;
    while (more && fgets(line, sizeof line, stdin) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        more = obey(line, hosts);
        if (fflush(stdout) != 0) {
            bench_fail("nobody reads what this prints");
        }
    }
    /* Where the rig is gone, too: without clean-up, since the broker does it. */
    _exit(0);
}
