/*
 * How many bindings a second the broker takes from a client that does nothing else: what group_add
 * of the layer is measured against. All are written without waiting for an answer, in turn over
 * `channels` AMQP channels; the last one on each channel is answered, and that answer comes after
 * all before it on that channel are routed.
 *
 *     librabbitmq_bind [groups=N] [channels=N] [kind=queue|exchange]
 *
 * A group is a routing key of a direct exchange. With kind=queue it is bound to the queue of the
 * process; with kind=exchange to an exchange of the process, which routes all to that queue, as the
 * layer has it.
 */

#include "librabbitmq.h"

#define CHANNELS_MOST 64

typedef struct {
    amqp_bytes_t groups; /* the exchange of the groups */
    amqp_bytes_t queue;
    amqp_bytes_t exchange; /* of the process */
    bool to_queue;
} topology_t;

static amqp_bytes_t name_of(char *name, size_t size, const char *format, uint64_t number) {
    int length = snprintf(name, size, format, (unsigned long long)number);
    return (amqp_bytes_t){.len = (size_t)length, .bytes = name};
}

static void declare(amqp_connection_state_t connection, const topology_t *topology) {
    const amqp_bytes_t direct = amqp_cstring_bytes("direct"), topic = amqp_cstring_bytes("topic");
    amqp_queue_declare(connection, CHANNEL, topology->queue, 0, 0, 1, 0, amqp_empty_table);
    check(amqp_get_rpc_reply(connection), "declare the queue");
    amqp_exchange_declare(connection, CHANNEL, topology->exchange, topic, 0, 0, 1, 0,
                          amqp_empty_table);
    check(amqp_get_rpc_reply(connection), "declare the exchange of the process");
    amqp_exchange_declare(connection, CHANNEL, topology->groups, direct, 0, 0, 1, 0,
                          amqp_empty_table);
    check(amqp_get_rpc_reply(connection), "declare the exchange of the groups");
    amqp_queue_bind(connection, CHANNEL, topology->queue, topology->exchange,
                    amqp_cstring_bytes("#"), amqp_empty_table);
    check(amqp_get_rpc_reply(connection), "bind the queue");
}

/* amqp_queue_bind and amqp_exchange_bind would wait for each answer. */
static void bind_group(amqp_connection_state_t connection, const topology_t *topology,
                       amqp_channel_t channel, amqp_bytes_t group, bool answered) {
    int status;
    if (topology->to_queue) {
        amqp_queue_bind_t method = {.queue = topology->queue,
                                    .exchange = topology->groups,
                                    .routing_key = group,
                                    .nowait = !answered};
        status = amqp_send_method(connection, channel, AMQP_QUEUE_BIND_METHOD, &method);
    } else {
        amqp_exchange_bind_t method = {.destination = topology->exchange,
                                       .source = topology->groups,
                                       .routing_key = group,
                                       .nowait = !answered};
        status = amqp_send_method(connection, channel, AMQP_EXCHANGE_BIND_METHOD, &method);
    }
    check_io(status, "bind");
}

static void await_answers(amqp_connection_state_t connection, const topology_t *topology,
                          uint64_t count) {
    const amqp_method_number_t wanted =
        topology->to_queue ? AMQP_QUEUE_BIND_OK_METHOD : AMQP_EXCHANGE_BIND_OK_METHOD;
    while (count > 0) {
        amqp_frame_t frame;
        next_frame(connection, &frame, "bind");
        if (frame.frame_type != AMQP_FRAME_METHOD || frame.payload.method.id != wanted) {
            check_frame(&frame, "bind");
        }
        count--;
    }
}

int main(int argc, char **argv) {
    (void)argc;
    bench_begin(argv);
    const char *url = bench_url(), *kind = bench_text("kind", "exchange");
    uint64_t groups = bench_count("groups", 1000), channels = bench_count("channels", 1);
    bench_no_more_arguments();
    if (channels == 0 || channels > CHANNELS_MOST || groups < channels) {
        bench_fail("channels is from 1 to %d, and there are as many groups at least",
                   CHANNELS_MOST);
    }
    topology_t topology = {.to_queue = strcmp(kind, "queue") == 0};
    if (!topology.to_queue && strcmp(kind, "exchange") != 0) {
        bench_fail("kind=%s: queue or exchange", kind);
    }
    bench_bound(300);

    uint64_t tag = (uint64_t)bench_now() & 0xffffffffffff;
    char names[3][48], group[48];
    topology.queue = name_of(names[0], sizeof names[0], "channels_%012llx", tag);
    topology.exchange = name_of(names[1], sizeof names[1], "channels_%012llx.groups", tag);
    topology.groups = name_of(names[2], sizeof names[2], "bench_groups_%012llx", tag);
    amqp_connection_state_t connection = connect_to(url);
    for (uint64_t each = 1; each < channels; each++) {
        open_channel(connection, (amqp_channel_t)(CHANNEL + each));
    }
    declare(connection, &topology);

    int64_t cpu = bench_clock(CLOCK_PROCESS_CPUTIME_ID), start = bench_now();
    cork(connection, 1);
    for (uint64_t i = 0; i < groups; i++) {
        bind_group(connection, &topology, (amqp_channel_t)(CHANNEL + i % channels),
                   name_of(group, sizeof group, "bench-group-%08llu", i), i + channels >= groups);
    }
    cork(connection, 0);
    await_answers(connection, &topology, channels);
    double added = (double)(bench_now() - start) / 1e9;
    cpu = bench_clock(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    printf("{\"groups\": %llu, \"adds_per_second\": %.1f, \"cpu_us_per_add\": %.2f}\n",
           (unsigned long long)groups, (double)groups / added, (double)cpu / 1e3 / (double)groups);
    /* The broker forgets the bindings before it answers, and so before the next contender. */
    close_connection(connection);
    return fflush(stdout) == 0 ? 0 : 1;
}
