/* layer_stat and layer_stats_prometheus: what is counted, and how it is told. */
#include "support.h"

#include <math.h>

/* The text with these labels, in room of its own. */
static char *prometheus(layer_t *layer, const char *labels, size_t *length) {
    size_t most = 0;
    CHECK_OK(layer_stats_prometheus(layer, labels, NULL, 0, &most, ERR));
    CHECK(most > 0, "the text can have no bytes");
    char *statistics = case_alloc(most + 1);
    memset(statistics, 'x', most + 1);
    CHECK_OK(layer_stats_prometheus(layer, labels, statistics, most + 1, length, ERR));
    CHECK(strlen(statistics) <= most, "the text has %zu bytes, more than %zu", strlen(statistics),
          most);
    return statistics;
}

/* The number that stands behind a series. */
static double value_of(const char *statistics, const char *series) {
    size_t length = strlen(series);
    for (const char *line = statistics; line != NULL; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, series, length) == 0 && line[length] == ' ') {
            return strtod(line + length, NULL);
        }
    }
    return NAN;
}

#define CHECK_VALUE(statistics, series, expected)                                                  \
    do {                                                                                           \
        double value_ = value_of(statistics, series);                                              \
        CHECK(value_ == (double)(expected), "%s is %f, not %f", series, value_,                    \
              (double)(expected));                                                                 \
    } while (0)

CASE(each_accepted_send_is_counted_and_has_one_outcome) {
    layer_t *sender = open_layer(DEFAULTS);
    layer_t *owner =
        open_layer(HOLDING, "local_capacity", "1", "prefetch_count", "1", "remote_capacity", "1");
    const char *channel = new_channel(owner), *gone = text("%s!gone", unique("channels_"));
    struct probe *done = probe_new("done");
    unsigned confirmed = 0, full = 0;
    while (full == 0) {
        layer_status_t status = STATUS(send_number(sender, channel, confirmed));
        CHECK(status == LAYER_OK || status == LAYER_FULL, "%s", layer_status_name(status));
        confirmed += status == LAYER_OK;
        full += status == LAYER_FULL;
    }
    CHECK_STATUS(LAYER_NO_CHANNEL, send_number(sender, gone, 1));
    CHECK_STATUS(LAYER_INVALID, send_number(sender, "no channel", 1)); /* Not accepted. */
    CHECK_OK(send_async(sender, new_channel(sender), 1, done));
    WAIT_CALLS(done, 1);

    CHECK_STAT(sender, LAYER_STAT_SENDS_ACCEPTED, confirmed + full + 2);
    CHECK_STAT(sender, LAYER_STAT_SENDS_CONFIRMED, confirmed + 1);
    CHECK_STAT(sender, LAYER_STAT_SENDS_FULL, full);
    CHECK_STAT(sender, LAYER_STAT_SENDS_NO_CHANNEL, 1);
    CHECK_STAT(sender, LAYER_STAT_SENDS_UNKNOWN, 0);
    CHECK_STAT(sender, LAYER_STAT_SENDS_TIMED_OUT, 0);
    CHECK_STAT(sender, LAYER_STAT_SENDS_UNCONFIRMED, 0);
    CHECK_STAT(sender, LAYER_STAT_SENDS_UNSENT, 0);
    CHECK_STAT(owner, LAYER_STAT_SENDS_ACCEPTED, 0);
    const char *statistics = prometheus(sender, NULL, NULL);
    CHECK_VALUE(statistics, "channel_layer_sends_total", confirmed + full + 2);
    CHECK_VALUE(statistics, "channel_layer_send_outcomes_total{outcome=\"full\"}", full);
    CHECK_VALUE(statistics, "channel_layer_send_outcomes_total{outcome=\"no_channel\"}", 1);
}

CASE(ready_is_one_while_the_layer_is_ready) {
    layer_t *layer = open_layer(DEFAULTS);
    CHECK_STAT(layer, LAYER_STAT_READY, 1);
    CHECK_STAT(layer, LAYER_STAT_GENERATION, 1);
    CHECK_STAT(layer, LAYER_STAT_RECONNECTS, 0);
    CHECK_OK(layer_close(layer, 20000, ERR));
    CHECK_STAT(layer, LAYER_STAT_READY, 0);
}

static int32_t work_for_10_ms(struct probe *probe, layer_status_t status,
                              const layer_message_t *message) {
    (void)probe;
    (void)message;
    double until = harness_now() + 0.01;
    while (status == LAYER_OK && harness_now() < until) {
    }
    return LAYER_CONTINUE;
}

CASE(callbacks_and_their_time_are_counted) {
    enum { COUNT = 5 };
    layer_t *layer = open_layer("dispatch", "poll");
    const char *channel = new_channel(layer);
    struct probe *probe = probe_new("receiver");
    probe->on_message = work_for_10_ms;
    uint64_t callbacks = stat_of(layer, LAYER_STAT_CALLBACKS),
             spent = stat_of(layer, LAYER_STAT_CALLBACK_NANOSECONDS);
    for (int64_t i = 0; i < COUNT; i++) {
        CHECK_OK(send_number(layer, channel, i));
    }
    WAIT_STAT(layer, LAYER_STAT_BACKLOG, COUNT);
    CHECK_STAT(layer, LAYER_STAT_CALLBACK_NANOSECONDS, spent); /* Waiting is no work. */
    CHECK_OK(receive(layer, channel, probe, NULL));
    double begin = harness_now();
    size_t ran = 0;
    while (SEEN(probe, length) < COUNT) {
        size_t count = 0;
        CHECK_OK(layer_poll(layer, 2, 20000, &count, ERR));
        ran += count;
    }
    double took = harness_now() - begin;
    CHECK_STAT(layer, LAYER_STAT_CALLBACKS, callbacks + ran);
    double counted = (double)(stat_of(layer, LAYER_STAT_CALLBACK_NANOSECONDS) - spent) / 1e9;
    CHECK(counted >= COUNT * 0.01, "%d callbacks of 10 ms took %f s", COUNT, counted);
    CHECK(counted <= took, "in %f s the callbacks took %f s", took, counted);

    const char *statistics = prometheus(layer, NULL, NULL);
    double seconds = value_of(statistics, "channel_layer_callback_seconds_total");
    double now = (double)stat_of(layer, LAYER_STAT_CALLBACK_NANOSECONDS) / 1e9;
    CHECK(fabs(seconds - now) < 1e-6, "the text says %f s, the statistic %f s", seconds, now);
    CHECK_VALUE(statistics, "channel_layer_callbacks_total", callbacks + ran);
}

CASE(the_text_for_prometheus_has_every_statistic_with_the_labels) {
    layer_t *layer = open_layer(DEFAULTS);
    const char *channel = new_channel(layer);
    CHECK_OK(send_number(layer, channel, 1));
    WAIT_STAT(layer, LAYER_STAT_BACKLOG, 1);
    size_t length = 0;
    const char *statistics = prometheus(layer, "site=\"a\", zone=\"b \\\"c\\\"\"", &length);
    CHECK(length == strlen(statistics), "the text has %zu bytes, not %zu", strlen(statistics),
          length);
    CHECK(statistics[length - 1] == '\n', "the last line has no end");
    unsigned series = 0, known = 0;
    for (const char *line = statistics; *line != '\0'; line = strchr(line, '\n') + 1) {
        if (*line != '#') {
            series++;
            CHECK(strstr(line, "{site=\"a\",zone=\"b \\\"c\\\"\"") != NULL, "no labels: %.80s",
                  line);
            CHECK(strncmp(line, "channel_layer_", 14) == 0, "another name: %.80s", line);
        }
    }
    uint64_t value;
    while (layer_stat(layer, known + 1, &value, NULL) == LAYER_OK) {
        known++;
    }
    CHECK(series == known && known >= LAYER_STAT_READY, "%u series of %u statistics", series,
          known);
    CHECK_VALUE(statistics, "channel_layer_backlog{site=\"a\",zone=\"b \\\"c\\\"\"}", 1);
    CHECK_VALUE(statistics, "channel_layer_ready{site=\"a\",zone=\"b \\\"c\\\"\"}", 1);
}

CASE(the_room_that_was_asked_for_is_enough_for_ever) {
    layer_t *layer = open_layer(DEFAULTS);
    const char *channel = new_channel(layer), *labels = "a=\"1\"";
    size_t before = 0, after = 0;
    CHECK_OK(layer_stats_prometheus(layer, labels, NULL, 0, &before, ERR));
    for (int64_t i = 0; i < 12; i++) { /* So that a number has a digit more. */
        CHECK_OK(send_number(layer, channel, i));
    }
    CHECK_OK(layer_stats_prometheus(layer, labels, NULL, 0, &after, ERR));
    CHECK(before == after, "first %zu bytes, then %zu", before, after);
}

CASE(too_little_room_for_the_text_is_invalid_and_named) {
    layer_t *layer = open_layer(DEFAULTS);
    size_t most = 0, length = 4711, written = strlen(prometheus(layer, "", NULL));
    CHECK_OK(layer_stats_prometheus(layer, "", NULL, 0, &most, ERR));
    char *statistics = case_alloc(most + 1);
    for (size_t size = 0; size <= written; size += size < written - 1 ? written - 1 : 1) {
        memset(statistics, 'x', most + 1);
        CHECK_STATUS(LAYER_INVALID,
                     layer_stats_prometheus(layer, "", statistics, size, &length, ERR));
        CHECK(strstr(error_text(), text("%zu", most + 1)) != NULL, "the error names no %zu: %s",
              most + 1, error_text());
        CHECK(length == 4711, "the length was written: %zu", length);
        CHECK(strspn(statistics, "x") >= most, "the text was written");
    }
    CHECK_OK(layer_stats_prometheus(layer, "", statistics, written + 1, NULL, ERR));
}

CASE(wrong_labels_for_prometheus_are_invalid_and_named) {
    layer_t *layer = open_layer(DEFAULTS);
    static const char *const wrong[] = {
        "site",     "site=a",          "site=\"a",         "1=\"a\"",           "__a=\"b\"",
        "a=\"b\",", "a=\"1\",a=\"2\"", "outcome=\"mine\"", "a=\"b\"} 1\nmore{", "a=\"\xff\""};
    size_t length = 4711;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        CHECK_STATUS(LAYER_INVALID, layer_stats_prometheus(layer, wrong[i], NULL, 0, &length, ERR));
        CHECK(strstr(error_text(), "labels") != NULL, "the error does not name labels: %s",
              error_text());
        CHECK(length == 4711, "the length was written: %zu", length);
    }
}

static void ask_for_text(struct probe *probe, layer_status_t status, const layer_error_t *error) {
    (void)status;
    (void)error;
    size_t length = 0;
    EXPECT_OK(layer_stats_prometheus(probe->context, NULL, NULL, 0, &length, ERR));
}

CASE(the_text_comes_in_a_callback_and_after_the_end) {
    layer_t *layer = open_layer(DEFAULTS);
    struct probe *done = probe_new("done");
    done->context = layer;
    done->on_done = ask_for_text;
    CHECK_OK(send_async(layer, new_channel(layer), 1, done));
    WAIT_CALLS(done, 1);
    CHECK_OK(layer_close(layer, 20000, ERR));
    CHECK_VALUE(prometheus(layer, NULL, NULL), "channel_layer_ready", 0);
}
