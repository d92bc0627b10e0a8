/* Cancel against arrival: whoever wins, no message is lost, doubled or given after the cancel. */
#include "support.h"

/* How long after a send the other party comes, in nanoseconds. Where the message was first, it
 * comes sooner the next time, else later, so that both happen about as often on any machine. A
 * streak makes the steps longer, so that the balance is soon found. */
struct steering {
    int64_t delay, step;
    bool message_was_first;
    int64_t message_first, races;
};

enum { FIRST_DELAY = 30000, SHORTEST_STEP = 200, LONGEST_STEP = 500000, LONGEST_DELAY = 50000000 };

static void steer(struct steering *steering, bool message_first) {
    bool streak = message_first == steering->message_was_first;
    steering->step = streak ? steering->step * 2 : steering->step / 8;
    int64_t longest_step = (int64_t)harness_scaled(LONGEST_STEP);
    int64_t longest_delay = (int64_t)harness_scaled(LONGEST_DELAY);
    steering->step = steering->step < SHORTEST_STEP  ? SHORTEST_STEP
                     : steering->step > longest_step ? longest_step
                                                     : steering->step;
    steering->delay += message_first ? -steering->step : steering->step;
    steering->delay = steering->delay < 0               ? 0
                      : steering->delay > longest_delay ? longest_delay
                                                        : steering->delay;
    steering->message_was_first = message_first;
    steering->message_first += message_first;
    steering->races++;
}

/* Whether each order was seen in at least a tenth of the races, or nothing was shown. */
static bool has_both_orders(const struct steering *steering) {
    int64_t races = steering->races, first = steering->message_first;
    /* A tool that slows us down lets few threads run at once, and is there for what it finds. */
    int64_t least = harness_scaled(1) > 1 ? races / 100 + 1 : races / 10;
    return first >= least && races - first >= least;
}

/* Whether there are races to run: so many, and more where the balance was not found in these. */
static bool goes_on(const struct steering *steering, int64_t races) {
    return steering->races < races || (!has_both_orders(steering) && steering->races < 10 * races);
}

static void check_both_orders(const struct steering *steering, const char *other) {
    long long races = (long long)steering->races, first = (long long)steering->message_first;
    harness_note("%lld races: message first %lld, %s first %lld", races, first, other,
                 races - first);
    CHECK(has_both_orders(steering), "of %lld races the message came first in %lld", races, first);
}

struct race {
    /* Under the lock. */
    int64_t number;    /* of the message under way */
    int32_t flow;      /* what the receiver makes of it */
    bool called;       /* the receiver was */
    bool cancelled;    /* cancel has returned */
    unsigned received; /* receivers ended, by their destroy */
};

static int32_t race_receive(void *userdata, layer_status_t status, const layer_message_t *message) {
    struct race *race = userdata;
    int64_t number = message == NULL ? INT64_MIN : number_of(message);
    harness_lock();
    EXPECT(status == LAYER_OK, "race %lld: ended by %s", (long long)race->number,
           layer_status_name(status));
    EXPECT(!race->cancelled, "race %lld: a call began after cancel had returned",
           (long long)race->number);
    EXPECT(!race->called, "race %lld: a second call", (long long)race->number);
    EXPECT(number == race->number, "race %lld: message %lld", (long long)race->number,
           (long long)number);
    race->called = true;
    int32_t flow = race->flow;
    harness_unlock();
    return flow;
}

static void race_destroy(void *userdata) {
    struct race *race = userdata;
    harness_lock();
    race->received++;
    harness_unlock();
}

static void spin(int64_t nanoseconds) {
    struct timespec start, now;
    clock_gettime(CLOCK_MONOTONIC, &start);
    do {
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while ((int64_t)(now.tv_sec - start.tv_sec) * 1000000000 + (now.tv_nsec - start.tv_nsec) <
             nanoseconds);
}

static int64_t races_to_run(void) {
    const char *races = getenv("CHANNEL_LAYER_TEST_RACES");
    if (races != NULL && atoll(races) > 0) {
        return atoll(races);
    }
    return on_memory() ? 100000 : 5000;
}

CASE(cancel_and_decline_lose_nothing_whichever_comes_first) {
    static const int32_t flows[] = {LAYER_CONTINUE, LAYER_DECLINE, LAYER_CONTINUE, LAYER_STOP};
    int64_t races = races_to_run();
    struct steering steering = {.delay = FIRST_DELAY};
    harness_limit(600);
    layer_t *layer = open_layer("remote_capacity", "1000");
    const char *channel = new_channel(layer);
    struct probe *done = probe_new("done");
    struct race *race = case_alloc(sizeof *race);
    for (int64_t i = 0; goes_on(&steering, races); i++) {
        uint64_t receiver = 0;
        harness_lock();
        race->number = i;
        race->flow = flows[i % 4];
        race->called = race->cancelled = false;
        harness_unlock();
        CHECK_OK(layer_receive(layer, channel, race_receive, race, race_destroy, &receiver, ERR));
        CHECK_OK(send_async(layer, channel, i, done));
        spin(steering.delay);
        CHECK_OK(layer_receive_cancel(layer, receiver, ERR));

        harness_lock();
        race->cancelled = true;
        bool called = race->called;
        int32_t flow = race->flow;
        harness_unlock();
        steer(&steering, called);

        layer_message_t *message = NULL;
        if (!called || flow == LAYER_DECLINE) {
            int64_t number = PULL_NUMBER(layer, channel);
            CHECK(number == i, "race %lld: %s, then message %lld was pulled", (long long)i,
                  called ? "declined" : "cancelled first", (long long)number);
        } else {
            layer_status_t status = STATUS(layer_receive_next(layer, channel, 0, &message, ERR));
            CHECK(status == LAYER_TIMEOUT, "race %lld: taken, and then a pull gave %s (%lld)",
                  (long long)i, layer_status_name(status),
                  (long long)(message == NULL ? -1 : number_of(message)));
        }
        /* A stop or a decline that won destroys by itself, perhaps a moment later. */
        WAIT_FOR(race->received == i + 1, "race %lld: %u receivers destroyed", (long long)i,
                 race->received);
        if (harness_failed()) {
            return;
        }
    }
    check_both_orders(&steering, "cancel");
    WAIT_CALLS(done, steering.races);
    CHECK_SEEN(done, outcomes[LAYER_OK], steering.races);
    CHECK_NOTHING_BEFORE_FENCE(layer, layer, channel);
    CHECK_STAT(layer, LAYER_STAT_RECEIVERS, 0);
}

/* The same for pulls: one that times out as its message arrives. */
CASE(pull_timeouts_and_arrivals_race_without_loss) {
    int64_t races = races_to_run() / 20;
    struct steering steering = {.delay = FIRST_DELAY};
    harness_limit(300);
    layer_t *layer = open_layer("remote_capacity", "1000");
    const char *channel = new_channel(layer);
    struct probe *done = probe_new("done");
    for (int64_t i = 0; goes_on(&steering, races); i++) {
        layer_message_t *message = NULL;
        CHECK_OK(send_async(layer, channel, i, done));
        spin(steering.delay);
        layer_status_t status = STATUS(layer_receive_next(layer, channel, 0, &message, ERR));
        bool first = status == LAYER_OK;
        steer(&steering, first);
        if (!first) {
            CHECK(status == LAYER_TIMEOUT, "%s (%s)", layer_status_name(status), error_text());
            message = pull(layer, channel);
        }
        int64_t number = number_of(message);
        layer_message_free(message);
        CHECK(number == i, "race %lld: message %lld", (long long)i, (long long)number);
    }
    check_both_orders(&steering, "pull");
    WAIT_CALLS(done, steering.races);
    CHECK_NOTHING_BEFORE_FENCE(layer, layer, channel);
}
