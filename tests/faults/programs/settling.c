/*
 * Sends that wait through a lost connection: settling SENDER RECEIVER.
 *
 * The two hosts are one broker behind two proxies. The row that runs this cuts each of them off,
 * and lets it connect again, where a line of the output asks for it, and answers with a line.
 */
#include "process.h"

#define MOST 400

/* Settling times: one in which the receiver surely comes back, and one that no test waits for. */
#define SETTLE "5"
#define LONG "60"

struct outcomes {
    atomic_int all, ok, no_channel;
};

/* What one receiver has got, in its order. */
struct heard {
    pthread_mutex_t lock;
    int count;
    int64_t numbers[MOST];
};

static struct heard heard = {.lock = PTHREAD_MUTEX_INITIALIZER};
static atomic_int releases;

static void ask(const char *what) {
    char answer[16];
    printf("%s\n", what);
    fflush(stdout);
    MUST_BE(fgets(answer, sizeof answer, stdin) != NULL);
}

static void on_log(void *userdata, layer_log_level_t level, const char *id, const char *target,
                   const char *message) {
    (void)userdata;
    (void)level;
    (void)target;
    (void)message;
    atomic_fetch_add(&releases, strcmp(id, "sends_released") == 0);
}

static int32_t on_message(void *userdata, layer_status_t status, const layer_message_t *message) {
    (void)userdata;
    if (status == LAYER_OK) {
        pthread_mutex_lock(&heard.lock);
        if (heard.count < MOST) {
            heard.numbers[heard.count++] = number_of(message);
        }
        pthread_mutex_unlock(&heard.lock);
    }
    return LAYER_CONTINUE;
}

static int heard_now(void) {
    pthread_mutex_lock(&heard.lock);
    int count = heard.count;
    pthread_mutex_unlock(&heard.lock);
    return count;
}

/* Whether exactly the numbers below `count` have come, in order; and forgets them. */
static bool heard_in_order(int count) {
    pthread_mutex_lock(&heard.lock);
    bool is_so = heard.count == count;
    for (int i = 0; i < heard.count; i++) {
        is_so = is_so && heard.numbers[i] == i;
    }
    heard.count = 0;
    pthread_mutex_unlock(&heard.lock);
    return is_so;
}

static void on_done(void *userdata, layer_status_t status, const layer_error_t *error) {
    struct outcomes *outcomes = userdata;
    (void)error;
    atomic_fetch_add(status == LAYER_OK ? &outcomes->ok : &outcomes->no_channel,
                     status == LAYER_OK || status == LAYER_NO_CHANNEL);
    atomic_fetch_add(&outcomes->all, 1);
}

/* Sends numbers from `first` up, to the group and to the channel in turn. */
static void send_some(layer_t *layer, const char *channel, int first, int count,
                      struct outcomes *outcomes) {
    for (int i = first; i < first + count; i++) {
        struct number m = number_message(i);
        if (i % 2 == 0) {
            MUST(layer_group_send_async(layer, "room", m.data, m.length, on_done, outcomes, NULL,
                                        ERROR));
        } else {
            MUST(
                layer_send_async(layer, channel, m.data, m.length, on_done, outcomes, NULL, ERROR));
        }
    }
}

static layer_t *open_sender(const char *host, const char *settle, const char *timeout) {
    layer_config_t *config = configure(host, "settle", settle, "timeout", timeout, NULL);
    MUST(layer_config_on_log(config, on_log, NULL, NULL, ERROR));
    return open_config(config);
}

static void lose(layer_t *layer, const char *who) {
    char line[64];
    snprintf(line, sizeof line, "cut %s", who);
    ask(line);
    MUST_BE(WAIT(stat_of(layer, LAYER_STAT_READY) == 0, 60));
}

static void come_back(layer_t *layer, const char *who) {
    char line[64];
    snprintf(line, sizeof line, "restore %s", who);
    ask(line);
    MUST(layer_wait_ready(layer, 60000, ERROR));
}

/* The sender is back before the receiver. */
static void a_receiver_that_comes_back_later(const char *host, layer_t *receiver,
                                             const char *channel) {
    enum { WAITED = 200, LATER = 50 };
    struct outcomes outcomes = {0};
    layer_t *sender = open_sender(host, SETTLE, LONG);
    lose(receiver, "receiver");
    lose(sender, "sender");
    send_some(sender, channel, 0, WAITED, &outcomes);
    come_back(sender, "sender");
    double back = now();
    send_some(sender, channel, WAITED, LATER, &outcomes);
    pause_for(0.3); /* By so much it is later, at least. */
    come_back(receiver, "receiver");
    bool were_held = atomic_load(&outcomes.all) == 0;
    check("sends that waited are held until the receiver is back too", were_held,
          "%d had ended when it was, after %.2f s", atomic_load(&outcomes.all), now() - back);
    bool all = WAIT(atomic_load(&outcomes.all) == WAITED + LATER, 60);
    double took = now() - back;
    check("then all are confirmed", all && atomic_load(&outcomes.ok) == WAITED + LATER, "%d of %d",
          atomic_load(&outcomes.ok), WAITED + LATER);
    check("after the settling time", took >= 4.9, "%.2f s", took);
    WAIT(heard_now() == WAITED + LATER, 20);
    int count = heard_now();
    check("the receiver gets all, group and direct in their order", heard_in_order(WAITED + LATER),
          "%d of %d", count, WAITED + LATER);
    check("the log says once that they were released",
          WAIT(atomic_load(&releases) > 0, 10) && atomic_exchange(&releases, 0) == 1, "%s", "");

    /* What is held is not held for nothing: with `settle` 0 the same is lost. */
    layer_free(sender);
    atomic_store(&outcomes.all, 0);
    atomic_store(&outcomes.ok, 0);
    sender = open_sender(host, "0", LONG);
    lose(receiver, "receiver");
    lose(sender, "sender");
    send_some(sender, channel, 0, WAITED, &outcomes);
    come_back(sender, "sender");
    all = WAIT(atomic_load(&outcomes.all) == WAITED, 30);
    check("without a settling time group sends are confirmed at once, direct ones have no channel",
          all && atomic_load(&outcomes.ok) == WAITED / 2 &&
              atomic_load(&outcomes.no_channel) == WAITED / 2,
          "%d ended, %d confirmed, %d without a channel", atomic_load(&outcomes.all),
          atomic_load(&outcomes.ok), atomic_load(&outcomes.no_channel));
    come_back(receiver, "receiver");
    /* What came before this one would have been heard before it. */
    MUST(group_send_number(sender, "room", 0, ERROR));
    WAIT(heard_now() > 0, 20);
    check("and nobody has heard them", heard_in_order(1), "%s", "");
    layer_free(sender);
}

static void a_deadline_before_the_settling_time(const char *host, const char *channel) {
    enum { COUNT = 100 };
    struct outcomes outcomes = {0};
    layer_t *sender = open_sender(host, LONG, "5");
    lose(sender, "sender");
    double began = now();
    send_some(sender, channel, 0, COUNT, &outcomes);
    come_back(sender, "sender");
    double back = now() - began;
    bool all = WAIT(atomic_load(&outcomes.all) == COUNT, 30);
    check("a send whose timeout would pass first is confirmed in time",
          all && atomic_load(&outcomes.ok) == COUNT && back < 4,
          "%d of %d, %.2f s after the send; connected after %.2f s", atomic_load(&outcomes.ok),
          COUNT, now() - began, back);
    WAIT(heard_now() == COUNT, 20);
    check("and arrives in its order", heard_in_order(COUNT), "%s", "");
    layer_free(sender);
}

static void a_close_in_the_settling_time(const char *host, const char *channel) {
    enum { COUNT = 300 };
    struct outcomes outcomes = {0};
    layer_t *sender = open_sender(host, LONG, LONG);
    lose(sender, "sender");
    send_some(sender, channel, 0, COUNT, &outcomes);
    come_back(sender, "sender");
    check("sends are held when the layer closes", atomic_load(&outcomes.all) == 0, "%d have ended",
          atomic_load(&outcomes.all));
    double began = now();
    MUST(layer_close(sender, 20000, ERROR));
    double took = now() - began;
    check("layer_close publishes what is held, and does not wait for the settling time",
          atomic_load(&outcomes.ok) == COUNT && took < 15, "%d of %d in %.2f s",
          atomic_load(&outcomes.ok), COUNT, took);
    WAIT(heard_now() == COUNT, 20);
    check("all of it arrives in order", heard_in_order(COUNT), "%s", "");
    layer_free(sender);
}

static void nothing_that_waited(const char *host) {
    layer_t *sender = open_sender(host, LONG, "50");
    lose(sender, "sender");
    come_back(sender, "sender");
    double began = now();
    for (int i = 0; i < 100; i++) {
        MUST(group_send_number(sender, "room", i, ERROR));
    }
    double took = now() - began;
    check("where nothing waited nothing is held", took < 20, "100 sends in %.2f s", took);
    WAIT(heard_now() == 100, 20);
    check("and all arrives", heard_in_order(100), "%s", "");
    layer_free(sender);
}

int main(int argc, char **argv) {
    MUST_BE(argc == 3);
    char channel[LAYER_NAME_SIZE];
    layer_t *receiver = open_layer(argv[2], "remote_capacity", "1000", NULL);
    MUST(layer_new_channel(receiver, NULL, channel, sizeof channel, ERROR));
    MUST(layer_receive(receiver, channel, on_message, NULL, NULL, NULL, ERROR));
    MUST(layer_group_add(receiver, "room", channel, ERROR));
    a_receiver_that_comes_back_later(argv[1], receiver, channel);
    a_deadline_before_the_settling_time(argv[1], channel);
    a_close_in_the_settling_time(argv[1], channel);
    nothing_that_waited(argv[1]);
    layer_free(receiver);
    return 0;
}
