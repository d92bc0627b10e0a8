/*
 * Many channels, groups and memberships in one layer, whose connections are then cut:
 * process_scale HOST BROKER CHANNELS GROUPS MEMBERS LOOKED_AT, with BROKER the pid of the broker,
 * or 0 for one in memory, which nobody can cut.
 *
 * Each group has MEMBERS members. A message to each of LOOKED_AT groups (of all where that is 0)
 * must reach exactly its members, before the cut; after it one to each of all groups.
 */
#include "process.h"

#define MOST_MEMBERS 32
/* Calls under way at once; the option `timeout` is for each. */
#define AHEAD 2000
/* Between the members of a group: a prime, so that groups share few of them. */
#define STRIDE 97

static layer_t *layer;
static long channels, groups, members;
static long broker;
static char (*names)[LAYER_NAME_SIZE];

/* Of this process alone, since the exchange is shared. */
static void name_group(char name[32], long group) {
    snprintf(name, 32, "scale-%d-%ld", getpid(), group);
}

static long member(long group, long number) { return (group + number * STRIDE) % channels; }

/* --- Calls under way ------------------------------------------------------------------------- */

static atomic_long under_way, failed;
static atomic_int first_failed;

static void on_done(void *userdata, layer_status_t status, const layer_error_t *error) {
    int none = LAYER_OK;
    (void)userdata;
    (void)error;
    if (status != LAYER_OK) {
        atomic_compare_exchange_strong(&first_failed, &none, status);
        atomic_fetch_add(&failed, 1);
    }
    atomic_fetch_sub(&under_way, 1);
}

static void await_room(long most) { MUST_BE(WAIT(atomic_load(&under_way) <= most, 120)); }

/* --- Who got what ---------------------------------------------------------------------------- */

/* For each group a bit for each member that has received its message; written by one thread. */
static uint32_t *seen;
static atomic_long arrived, wrong;

static int32_t on_message(void *userdata, layer_status_t status, const layer_message_t *message) {
    long channel = (long)(intptr_t)userdata;
    if (status != LAYER_OK) {
        return LAYER_CONTINUE;
    }
    long group = (long)number_of(message), number = 0;
    char name[32];
    name_group(name, group);
    while (number < members && (group < 0 || group >= groups || member(group, number) != channel ||
                                strcmp(layer_message_group(message), name) != 0)) {
        number++;
    }
    if (number == members || (seen[group] & UINT32_C(1) << number) != 0) {
        atomic_fetch_add(&wrong, 1);
    } else {
        seen[group] |= UINT32_C(1) << number;
    }
    atomic_fetch_add(&arrived, 1);
    return LAYER_CONTINUE;
}

/* A message to each of `count` groups, spread over all. */
static void look_at(const char *claim, long count) {
    double began = now();
    memset(seen, 0, (size_t)groups * sizeof *seen);
    atomic_store(&arrived, 0);
    atomic_store(&wrong, 0);
    atomic_store(&failed, 0);
    for (long i = 0; i < count; i++) {
        long group = (long)((double)i * (double)groups / (double)count);
        struct number m = number_message(group);
        char name[32];
        name_group(name, group);
        await_room(AHEAD - 1);
        atomic_fetch_add(&under_way, 1);
        MUST(layer_group_send_async(layer, name, m.data, m.length, on_done, NULL, NULL, ERROR));
    }
    await_room(0);
    WAIT(atomic_load(&arrived) >= count * members, 60);
    long whole = 0;
    for (long group = 0; group < groups; group++) {
        whole += seen[group] == (uint32_t)((UINT64_C(1) << members) - 1);
    }
    check(claim,
          whole == count && atomic_load(&wrong) == 0 && atomic_load(&failed) == 0 &&
              atomic_load(&arrived) == count * members,
          "%ld groups, %ld of them wholly; %ld messages of %ld, %ld wrong; %ld sends failed (%s); "
          "%.2f s",
          count, whole, atomic_load(&arrived), count * members, atomic_load(&wrong),
          atomic_load(&failed), layer_status_name(atomic_load(&first_failed)), now() - began);
}

/* --- The cut --------------------------------------------------------------------------------- */

static double cpu_of_broker(void) {
    char path[64], text[1024];
    unsigned long user, system;
    snprintf(path, sizeof path, "/proc/%ld/stat", broker);
    FILE *file = fopen(path, "r");
    MUST_BE(file != NULL);
    size_t length = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[length] = '\0';
    MUST_BE(sscanf(strrchr(text, ')') + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu",
                   &user, &system) == 2);
    return (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
}

static double cut_at;

static void on_log(void *userdata, layer_log_level_t level, const char *id, const char *target,
                   const char *message) {
    (void)userdata;
    (void)id;
    (void)target;
    if (cut_at > 0 && level <= LAYER_LOG_INFO) {
        printf("%.3f s after the cut: %.150s\n", now() - cut_at, message);
        fflush(stdout);
    }
}

static void cut_and_return(void) {
    layer_state_t state;
    double cpu = cpu_seconds(), brokers = cpu_of_broker();
    long before = rss_kib(), most = before;
    cut_at = now();
    MUST_BE(cut_connections() >= 2);
    while (stat_of(layer, LAYER_STAT_GENERATION) == 1 && now() - cut_at < 600) {
        pause_for(0.01);
    }
    double declared = now() - cut_at;
    do { /* Seldom, since its own time would be counted. */
        pause_for(0.01);
        long rss = rss_kib();
        most = rss > most ? rss : most;
        MUST(layer_state(layer, &state, ERROR));
    } while (state != LAYER_STATE_READY && now() - cut_at < 600);
    MUST_BE(state == LAYER_STATE_READY);
    double ready = now() - cut_at;
    check("after the cut the layer is ready with every group bound",
          stat_of(layer, LAYER_STAT_GROUPS_BOUND) == (uint64_t)groups, "%llu groups of %ld",
          (unsigned long long)stat_of(layer, LAYER_STAT_GROUPS_BOUND), groups);
    figure("cut to ready", "%.2f s, of them %.2f s until the broker had ended the old queue", ready,
           declared);
    figure("CPU from cut to ready", "%.2f s here, %.2f s in the broker", cpu_seconds() - cpu,
           cpu_of_broker() - brokers);
    figure("RSS before the cut, at most, and after", "%.1f, %.1f and %.1f MiB",
           (double)before / 1024, (double)most / 1024, (double)rss_kib() / 1024);
    cut_at = 0;
}

int main(int argc, char **argv) {
    MUST_BE(argc == 7);
    use_one_arena();
    broker = atol(argv[2]);
    channels = atol(argv[3]);
    groups = atol(argv[4]);
    members = atol(argv[5]);
    long looked_at = atol(argv[6]);
    MUST_BE(channels > 0 && groups > 0 && members > 0 && members <= MOST_MEMBERS);
    MUST_BE(members == 1 || channels > STRIDE * members);
    names = calloc((size_t)channels, sizeof *names);
    seen = calloc((size_t)groups, sizeof *seen);
    MUST_BE(names != NULL && seen != NULL);
    memset(names, 1, (size_t)channels * sizeof *names); /* Resident before it is measured. */
    memset(seen, 1, (size_t)groups * sizeof *seen);

    layer_config_t *config =
        configure(argv[1], "remote_capacity", "1000000", "timeout", "60", NULL);
    MUST(layer_config_on_log(config, on_log, NULL, NULL, ERROR));
    layer = open_config(config);

    long rss = rss_kib();
    double began = now();
    for (long i = 0; i < channels; i++) {
        MUST(layer_new_channel(layer, NULL, names[i], sizeof names[i], ERROR));
        MUST(layer_receive(layer, names[i], on_message, (void *)(intptr_t)i, NULL, NULL, ERROR));
    }
    figure("channels, each with a receiver", "%ld in %.2f s, %.0f bytes each", channels,
           now() - began, (double)(rss_kib() - rss) * 1024 / (double)channels);

    /* First a member for each group, so that the memory of each kind is known. */
    for (long number = 0; number < members; number++) {
        if (number < 2) {
            rss = rss_kib();
            began = now();
        }
        for (long group = 0; group < groups; group++) {
            char name[32];
            name_group(name, group);
            await_room(AHEAD - 1);
            atomic_fetch_add(&under_way, 1);
            MUST(layer_group_add_async(layer, name, names[member(group, number)], on_done, NULL,
                                       NULL, ERROR));
        }
        await_room(0);
        if (number == 0 || number == members - 1) {
            long count = number == 0 ? groups : groups * (members - 1);
            figure(number == 0 ? "groups, each with its first member" : "further memberships",
                   "%ld in %.2f s, %.0f bytes each", count, now() - began,
                   (double)(rss_kib() - rss) * 1024 / (double)count);
        }
    }
    check("each membership is told of once its group is bound",
          atomic_load(&failed) == 0 && stat_of(layer, LAYER_STAT_CHANNELS) == (uint64_t)channels &&
              stat_of(layer, LAYER_STAT_GROUPS_BOUND) == (uint64_t)groups &&
              stat_of(layer, LAYER_STAT_MEMBERSHIPS) == (uint64_t)(groups * members),
          "%llu channels, %llu groups, %llu memberships, %ld calls failed (%s)",
          (unsigned long long)stat_of(layer, LAYER_STAT_CHANNELS),
          (unsigned long long)stat_of(layer, LAYER_STAT_GROUPS_BOUND),
          (unsigned long long)stat_of(layer, LAYER_STAT_MEMBERSHIPS), atomic_load(&failed),
          layer_status_name(atomic_load(&first_failed)));
    figure("RSS of the process", "%.1f MiB", (double)rss_kib() / 1024);
    look_at("a message to a group reaches exactly its members",
            looked_at == 0 ? groups : looked_at);
    if (broker > 0) {
        cut_and_return();
        look_at("after the cut a message to each group reaches exactly its members", groups);
    }

    /* Every tenth group goes. */
    double cpu = cpu_seconds();
    long going = 0;
    began = now();
    for (long group = 0; group < groups; group += 10) {
        char name[32];
        name_group(name, group);
        for (long number = 0; number < members; number++) {
            MUST(layer_group_discard(layer, name, names[member(group, number)], ERROR));
        }
        going++;
    }
    uint64_t left = (uint64_t)(groups - going);
    while (stat_of(layer, LAYER_STAT_GROUPS_BOUND) != left && now() - began < 600) {
        pause_for(0.01);
    }
    bool gone = stat_of(layer, LAYER_STAT_GROUPS_BOUND) == left;
    check("groups that lose their members are unbound", gone, "%ld in %.2f s, %.2f s of CPU", going,
          now() - began, cpu_seconds() - cpu);
    began = now();
    layer_status_t closed = layer_close(layer, 10000, NULL);
    check("close ends within its time", closed == LAYER_OK, "%s after %.2f s",
          layer_status_name(closed), now() - began);
    layer_free(layer);
    free(names);
    free(seen);
    return 0;
}
