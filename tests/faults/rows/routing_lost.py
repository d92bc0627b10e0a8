"""The connection stands, and yet nothing comes: the queue or the way to it is lost."""

import re
import time

import rabbitmq
from load import Load
from proxy import Proxy

SCENARIO = "exchange made anew, queue crashed, queue hung: the connection stands"
HEARTBEAT = 1
LAYERS = 2
BOUND_AGAIN = " bound_again "
NOTICED = "does not route to queue"

EXCHANGE_MADE_ANEW = """
    X = rabbit_misc:r(<<"asgi">>, exchange, <<"groups">>),
    ok = rabbit_exchange:delete(X, false, <<"test">>),
    rabbit_exchange:declare(X, direct, false, false, false, [], <<"test">>), ok.
"""
# Kills the queue, and waits until each layer consumes from a queue that lives: RabbitMQ 3.10 starts this
# one again, with our consumer, 4.3 cancels the consumer, and the layer declares another one.
KILL_QUEUE = """
    {{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"asgi">>, queue, <<"{queue}">>)),
    Killed = amqqueue:get_pid(Q),
    exit(Killed, kill),
    Consumed = fun() ->
        [Any || Any <- rabbit_amqqueue:list(<<"asgi">>), amqqueue:get_pid(Any) =/= Killed,
                amqqueue:get_exclusive_owner(Any) =/= none,
                (catch length(rabbit_amqqueue:consumers(Any))) =:= 1] end,
    Wait = fun Wait(0) -> exit(not_consumed); Wait(Left) ->
        case length(Consumed()) of
            {layers} -> ok;
            _ -> timer:sleep(50), Wait(Left - 1)
        end end,
    Wait(400).
"""
WITH_QUEUE = """
    {{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"asgi">>, queue, <<"{queue}">>)),
    sys:{act}(amqqueue:get_pid(Q)), ok.
"""


def run(report, short):
    with rabbitmq.Node() as node, Proxy(node.port) as proxy:
        options = {"timeout": 3, "heartbeat": HEARTBEAT, "connect_timeout": 3}
        with Load(proxy.url(), ("rate=300",), **options) as load:
            load.wait_started()
            queue = re.search(r"queue '(channels_\w+)'", load.log()).group(1)

            generations = load.generations()
            for _ in range(6):
                before = load.log().count(BOUND_AGAIN)
                node.eval(EXCHANGE_MADE_ANEW)
                began = time.monotonic()
                bound = rabbitmq.wait_until(
                    lambda: load.log().count(BOUND_AGAIN) >= before + LAYERS, 20)
                back = load.wait_ready(20) if bound else None
                took = None if back is None else max(back - began, 0)
                report.check_time("the bindings are made again", took, 3 * HEARTBEAT)
                # A send that met the moment without an exchange has found out first: once more,
                # then.
                if NOTICED in load.log():
                    break
            report.check("the queues stay", load.generations() == generations)
            report.figure("bound again", f"{took or 0:.1f} s after the exchange was made anew")

            # That a queue which crashed is reached again is checked at the end, as it is for all.
            node.eval(KILL_QUEUE.format(queue=queue, layers=LAYERS))
            load.wait_ready(20)
            queue = re.findall(r"of queue '(channels_\w+)'", load.log())[-1]
            before = load.generations()
            began = time.monotonic()
            node.eval(WITH_QUEUE.format(queue=queue, act="suspend"))
            noticed = load.wait_any_unready(10)
            took = None if noticed is None else noticed - began
            report.check_time("a queue that hangs is noticed", took, 4 * HEARTBEAT, slack=3)
            report.figure("a hung queue is noticed after", f"{took or 0:.1f} s")
            node.eval(WITH_QUEUE.format(queue=queue, act="resume"))
            report.check("ready again once the queue is gone", load.wait_next(before, 10))
            ledger = load.end()
            log = load.log()
        # An exchange without bindings routes to nobody, and a queue that crashed is empty.
        ledger.judge(report, proxy.recorder, load.timeout, broker_loses=True)
        for words in (NOTICED, "gave no sign of life"):
            report.check(f"the log says: {words}", words in log)
