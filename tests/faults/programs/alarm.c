/*
 * What goes on while the broker blocks publishers: alarm HOST
 *
 * Fills a queue, says `filled`, and on a line of input (the alarm is on) says what each call came
 * to; on the next (the alarm is off) whether sends work again.
 */
#include "process.h"

/* Of them the receiver holds 20 in memory; the rest waits on the broker. */
#define MESSAGES 60

static layer_t *open_small(const char *host) {
    return open_layer(host, "timeout", "1", "local_capacity", "10", "prefetch_count", "10",
                      "max_in_flight", "50", NULL);
}

static void wait_for_line(void) {
    char line[10];
    MUST_BE(fgets(line, sizeof line, stdin) != NULL);
}

/* `NAME STATUS SECONDS`, on a line of its own. */
#define TELL(name, call)                                                                           \
    do {                                                                                           \
        double begin_ = now();                                                                     \
        layer_status_t status_ = (call);                                                           \
        printf("%s %s %.3f\n", name, layer_status_name(status_), now() - begin_);                  \
        fflush(stdout);                                                                            \
    } while (0)

int main(int argc, char **argv) {
    MUST_BE(argc == 2);
    layer_t *sender = open_small(argv[1]), *closed = open_small(argv[1]);
    layer_t *receiver = open_small(argv[1]);
    char channel[LAYER_NAME_SIZE];
    MUST(layer_new_channel(receiver, NULL, channel, sizeof channel, ERROR));
    for (int i = 0; i < MESSAGES; i++) {
        MUST(send_number(sender, channel, i, ERROR));
    }
    printf("filled\n");
    fflush(stdout);

    wait_for_line();
    /* The broker tells a connection that it is blocked when it next publishes. */
    TELL("first_send", send_number(sender, channel, 0, NULL));
    TELL("closed_send", send_number(closed, channel, 0, NULL));
    (void)WAIT(stat_of(sender, LAYER_STAT_PUBLISHERS_BLOCKED) &&
                   stat_of(closed, LAYER_STAT_PUBLISHERS_BLOCKED),
               5);
    printf("blocked %d %d\n", (int)stat_of(sender, LAYER_STAT_PUBLISHERS_BLOCKED),
           (int)stat_of(closed, LAYER_STAT_PUBLISHERS_BLOCKED));
    TELL("blocked_send", send_number(sender, channel, 0, NULL));

    double begin = now();
    int received = 0;
    for (layer_message_t *taken; received < MESSAGES; received++) {
        if (layer_receive_next(receiver, channel, 5000, &taken, NULL) != LAYER_OK) {
            break;
        }
        layer_message_free(taken);
    }
    printf("received %d %.3f\n", received, now() - begin);
    TELL("group_add", layer_group_add(receiver, "alarm", channel, NULL));
    TELL("close", layer_close(closed, 1000, NULL));
    layer_free(closed);

    printf("done\n");
    fflush(stdout);
    wait_for_line();
    layer_status_t status = LAYER_BUSY;
    (void)WAIT((status = send_number(sender, channel, 0, NULL)) == LAYER_OK, 20);
    TELL("send_afterwards", status);
    /* Whatever sends came to, their permits are free again. */
    (void)WAIT(stat_of(sender, LAYER_STAT_IN_FLIGHT) == 0, 5);
    printf("in_flight %d\n", (int)stat_of(sender, LAYER_STAT_IN_FLIGHT));
    TELL("close_afterwards", layer_close(sender, 5000, NULL));
    layer_free(sender);
    layer_free(receiver);
    return 0;
}
