"""What the row `chaos` does: each action a class that does and undoes one thing.

`draw` is the number from which an action derives its target, so that a seed names it. What the
oracle is told of an action:

- `UNNOTICED`: for how long nobody can notice what was done, in heartbeats: a silent peer, and a
  route that was deleted on the broker, are noticed by the heartbeat at the earliest.
- `SUSPENDS`: while it is in effect, what is heard, and when, says nothing.
- `DIVIDES`: while it is in effect a layer may be connected to a part of the cluster that the
  control client does not reach.
- `LOSES`: the broker may lose what it has acked.
- `DISTURBS`: it can cost a layer its connections or its routes.
- `SPARES_QUEUES`: it costs none that its queue depends on.
"""

import subprocess
import time

import rabbitmq
from chaos import amqp, schedule

SILENT_PEER = 3  # heartbeats, as README's table says; the same for a lost route
VHOST, USER, GROUPS = "asgi", "guest", "groups"


class ActionError(Exception):
    """An action could not be done or undone: the run shows nothing from then on."""


class Action:
    UNNOTICED = 0
    SUSPENDS = False
    DIVIDES = False
    LOSES = False
    DISTURBS = True
    SPARES_QUEUES = False

    def __init__(self, world, draw):
        self.world = world
        self.draw = draw

    def pick(self, several):
        """One of `several`, by the draw; each further call picks by what is left of it."""
        several = list(several)
        self.draw, index = divmod(self.draw, len(several))
        return several[index]

    def do(self):
        raise NotImplementedError

    def undo(self):
        """Nothing, where what was done is over at once."""

    def restore(self):
        """What takes its time after `undo`, and disturbs nobody: a node starts."""

    def target(self):
        """What it was done to, for the record of actions."""
        return ""


# --- nodes ----------------------------------------------------------------------------------


class NodeAction(Action):
    def __init__(self, world, draw):
        super().__init__(world, draw)
        self.number = self.pick(range(len(world.cluster.nodes)))
        self.node = world.cluster.nodes[self.number]

    def target(self):
        return f"node {self.number}"


class NodeKilled(NodeAction):
    def do(self):
        self.world.leave(self.node)
        self.node.kill9()

    def restore(self):
        self.node.start()
        self.world.join(self.node)


class NodeRestarted(NodeKilled):
    def do(self):
        self.world.leave(self.node)
        self.node.stop()


class NodeFrozen(NodeAction):
    UNNOTICED = SILENT_PEER
    LOSES = True

    def do(self):
        self.world.leave(self.node)
        self.node.sigstop()
        self.frozen_at = time.monotonic()

    def undo(self):
        # What the others have given up is not to come back as it was: RabbitMQ would take it for a
        # partition that is over at once, and stay divided.
        if time.monotonic() - self.frozen_at < self.world.given_up_after:
            self.node.sigcont()
        else:
            self.node.kill9()

    def restore(self):
        if not self.node.running():
            self.node.start()
        self.world.wait_until_whole()
        self.world.join(self.node)


class NodePartitioned(NodeAction):
    """The node and the others refuse each other's distribution: it has another cookie for them.

    No firewall is needed. The one that is alone pauses, and takes no clients until it is over;
    from RabbitMQ 4.2 on, with Khepri, it goes on, and its clients reach each other alone.
    """
    UNNOTICED = SILENT_PEER
    DIVIDES = True
    LOSES = True

    def do(self):
        self.world.leave(self.node)
        self.world.evaluate(self.node, self._for_each_other(
            "erlang:set_cookie(N, chaos), erlang:disconnect_node(N)"))

    def undo(self):
        self.world.evaluate(self.node, self._for_each_other(
            "erlang:set_cookie(N, erlang:get_cookie()), net_kernel:connect_node(N)"))

    def restore(self):
        self.world.wait_until_whole()
        self.world.join(self.node)

    def _for_each_other(self, act):
        others = ", ".join(f"'{node.name}'" for node in self.world.cluster.nodes
                           if node is not self.node)
        return f"lists:foreach(fun(N) -> {act} end, [{others}]), ok."


# --- network --------------------------------------------------------------------------------


class NetworkAction(Action):
    """Done to the proxies before one node, or before all."""

    def __init__(self, world, draw):
        super().__init__(world, draw)
        self.proxies = self.pick([*([proxy] for proxy in world.proxies), world.proxies])

    def target(self):
        return "ports " + ", ".join(str(proxy.target) for proxy in self.proxies)


class ConnectionsCut(NetworkAction):
    def do(self):
        reset = self.pick((True, False))
        for proxy in self.proxies:
            proxy.cut_all(reset)


class PublishersCut(NetworkAction):
    """Cuts the connections that publish: the others, and so the queues, stay."""
    SPARES_QUEUES = True

    def do(self):
        reset = self.pick((True, False))
        for proxy in self.proxies:
            proxy.cut_publishers(reset)


class ConnectionsFrozen(NetworkAction):
    UNNOTICED = SILENT_PEER

    def do(self):
        for way in self.pick((("to_client",), ("to_broker",), ("to_client", "to_broker"))):
            for proxy in self.proxies:
                proxy.stall(way)

    def undo(self):
        for proxy in self.proxies:
            proxy.resume()


class ConnectionsTrickled(NetworkAction):
    # A connection that carries less than is sent falls behind, and stays up.
    SUSPENDS = True
    UNNOTICED = SILENT_PEER

    def do(self):
        slow = self.pick(("delay", "trickle"))
        for proxy in self.proxies:
            setattr(proxy, slow, 0.05 if slow == "delay" else 11)

    def undo(self):
        for proxy in self.proxies:
            proxy.delay, proxy.trickle = 0, 0


# --- admin ----------------------------------------------------------------------------------


class QueueDeleted(Action):
    UNNOTICED = SILENT_PEER
    LOSES = True
    queue = "none is open"

    def do(self):
        queues = sorted({name.partition("!")[0] for name in self.world.channels()})
        if queues:
            self.queue = self.pick(queues)
            self.world.admin_eval(f"""
                case rabbit_amqqueue:lookup(rabbit_misc:r(<<"{VHOST}">>, queue, <<"{self.queue}">>))
                of {{ok, Q}} -> rabbit_amqqueue:delete(Q, false, false, <<"chaos">>), ok;
                   {{error, not_found}} -> ok
                end.""")

    def target(self):
        return self.queue


class ExchangeDeleted(Action):
    UNNOTICED = SILENT_PEER
    LOSES = True

    def do(self):
        self.again = self.pick((False, True))
        self.world.admin_amqp(self.delete)

    def delete(self, connection):
        connection.delete_exchange(GROUPS)
        if self.again:
            connection.declare_exchange(GROUPS)

    def target(self):
        return "and made again" if self.again else "until somebody declares it"


class PrivatePartDeleted(Action):
    """A part of the way from the groups exchange to one queue: the layer's own exchange, its intake or
    what keeps it."""
    UNNOTICED = SILENT_PEER
    LOSES = True

    def do(self):
        self.part = self.pick(("exchange", "intake", "keeper"))
        self.world.admin_eval(f"""
            V = <<"{VHOST}">>, Draw = {self.draw},
            Has = fun(Name, Part) -> binary:match(Name, Part) =/= nomatch end,
            Exchanges = [R || X <- rabbit_exchange:list(V), {{resource, _, _, N}} = R <- [element(2, X)],
                Has(N, <<".groups.">>)],
            Intakes = [R || {{resource, _, _, N}} = R <- Exchanges, Has(N, <<".intake.">>)],
            Keepers = [Q || Q <- rabbit_amqqueue:list(V), {{resource, _, _, N}} <- [amqqueue:get_name(Q)],
                Has(N, <<".keeper.">>)],
            One = fun(All) -> lists:nth(Draw rem length(All) + 1, lists:sort(All)) end,
            case {{{self.part}, Exchanges -- Intakes, Intakes, Keepers}} of
                {{exchange, [_ | _] = All, _, _}} ->
                    rabbit_exchange:delete(One(All), false, <<"chaos">>);
                {{intake, _, [_ | _] = All, _}} ->
                    rabbit_exchange:delete(One(All), false, <<"chaos">>);
                {{keeper, _, _, [_ | _] = All}} ->
                    rabbit_amqqueue:delete(One(All), false, false, <<"chaos">>);
                _ -> none
            end, ok.""")

    def target(self):
        return self.part


class AlternateExchange(ExchangeDeleted):
    """The groups exchange is deleted and made again while a policy gives it an alternate exchange,
    with a queue: what it cannot route is not returned."""
    OTHER = "chaos-alternate"

    def do(self):
        self.again = True
        self.world.admin_amqp(self.declare)
        self.world.ctl("set_policy", "-p", VHOST, self.OTHER, f"^{GROUPS}$",
                       f'{{"alternate-exchange": "{self.OTHER}"}}', "--apply-to", "exchanges")
        self.world.admin_amqp(self.delete)

    def declare(self, connection):
        connection.declare_exchange(self.OTHER, "fanout")
        # Durable, since RabbitMQ 4.3 knows no other that outlives its connection.
        connection.declare_queue(self.OTHER, amqp.DURABLE, x_max_length=10)
        connection.bind(self.OTHER, self.OTHER, "")

    def undo(self):
        self.world.clear_policy(self.OTHER)


class QueuePolicy(Action):
    """Queues that hold little, or nothing for long."""
    SUSPENDS = True
    LOSES = True

    def do(self):
        self.policy = self.pick(('{"max-length": 1}', '{"message-ttl": 50}', '{"expires": 60000}'))
        self.world.ctl("set_policy", "-p", VHOST, "chaos-queues", "^channels_", self.policy,
                       "--apply-to", "queues")

    def undo(self):
        self.world.clear_policy("chaos-queues")

    def target(self):
        return self.policy


class RightsTaken(Action):
    def do(self):
        # What a user may configure, write and read.
        self.rights = self.pick((
            ("^$", "^$", "^$"), (".*", f"^({GROUPS}|channels_.*|chaos-.*)$", ".*"),
            (".*", "^(amq\\.default|channels_.*|chaos-.*)$", ".*"), (".*", ".*", "^$"),
            ("^$", ".*", ".*")))
        self.world.ctl("set_permissions", "-p", VHOST, USER, *self.rights)

    def undo(self):
        self.world.ctl("set_permissions", "-p", VHOST, USER, ".*", ".*", ".*")

    def target(self):
        return " ".join(self.rights)


class LimitsSet(Action):
    def do(self):
        self.limit = self.pick(('{"max-connections": 0}', '{"max-queues": 0}', "max-channels"))
        if self.limit == "max-channels":
            self.world.ctl("set_user_limits", USER, '{"max-channels": 0}')
        else:
            self.world.ctl("set_vhost_limits", "-p", VHOST, self.limit)

    def undo(self):
        # Set to none, since one that fails may have cleared them, and cannot clear them twice.
        if self.limit == "max-channels":
            self.world.ctl("set_user_limits", USER, '{"max-channels": -1}')
        else:
            self.world.ctl("set_vhost_limits", "-p", VHOST, "{}")

    def target(self):
        return self.limit


class Alarm(Action):
    def do(self):
        self.node = self.world.by_admin_node(self._raise_at)

    @staticmethod
    def _raise_at(node):
        node.ctl("set_vm_memory_high_watermark", "absolute", "1")
        return node

    def undo(self):
        # One that was restarted has the limit of its configuration; this may meet the restart.
        self.world.while_it_runs(
            self.node, lambda node: node.ctl("set_vm_memory_high_watermark", "0.4"))


# --- layers and receivers -------------------------------------------------------------------


class ProgramAction(Action):
    DISTURBS = False

    def __init__(self, world, draw):
        super().__init__(world, draw)
        self.slot = self.pick(range(world.slots))

    def target(self):
        return f"slot {self.slot}"


class OversizedSends(ProgramAction):
    def do(self):
        # Larger than the broker takes, and larger than option max_message_size.
        for size in (self.world.broker_limit + 1, self.world.layer_limit + 1):
            self.world.command(f"oversize {self.slot} {size}")


class LayerClosed(ProgramAction):
    def do(self):
        self.world.command(f"close {self.slot} {self.pick((100, 1000, 2000))}")

    def undo(self):
        self.world.command(f"open {self.slot}", wait=False)


class ProcessForked(ProgramAction):
    def do(self):
        self.world.command(f"fork {self.slot}", wait=False)


class ReceiverDead(ProgramAction):
    def do(self):
        self.channel = self.pick(range(self.world.channels_each))
        self.world.command(f"remove {self.slot} {self.channel}")

    def undo(self):
        self.world.command(f"add {self.slot} {self.channel}")


class ReceiverStalled(ReceiverDead):
    def do(self):
        self.channel = self.pick(range(self.world.channels_each))
        self.world.command(f"stall {self.slot} {self.channel}")

    def undo(self):
        self.world.command(f"resume {self.slot} {self.channel}")


# The class of each action of the schedule: node_killed is NodeKilled.
ACTIONS = {name: globals()["".join(word.capitalize() for word in name.split("_"))]
           for name in schedule.NAMES}


# --- the world ------------------------------------------------------------------------------


class World:
    """What the actions act on. `slots` and `channels_each` are those of the program, and nodes give
    one up that was silent for `given_up_after` seconds."""

    WHOLE_SECONDS = 90
    AMQP_SECONDS = 5

    def __init__(self, cluster, proxies, program, slots, channels_each, broker_limit, layer_limit,
                 given_up_after):
        self.cluster = cluster
        self.proxies = proxies
        self.program = program
        self.slots = slots
        self.channels_each = channels_each
        self.broker_limit = broker_limit
        self.layer_limit = layer_limit
        self.given_up_after = given_up_after
        self._away = set()  # nodes that something is done to

    def command(self, text, wait=True):
        self.program.command(text, wait)

    def channels(self):
        return self.program.channels()

    # Of two lanes, one takes nodes away and the other asks them to act.

    def leave(self, node):
        self._away.add(node)

    def join(self, node):
        self._away.discard(node)

    def admin_node(self):
        for node in self.cluster.nodes:
            if node not in self._away:
                return node
        raise ActionError("no node is left to be asked")

    def ctl(self, *arguments):
        return self.by_admin_node(lambda node: node.ctl(*arguments))

    def clear_policy(self, name):
        def clear(node):
            if name in node.ctl("list_policies", "-p", VHOST):
                node.ctl("clear_policy", "-p", VHOST, name)
        self.by_admin_node(clear)

    def admin_eval(self, code):
        return self.by_admin_node(lambda node: self.evaluate(node, code))

    def admin_amqp(self, act):
        """Has `act` do something by a connection of its own, which no proxy sees."""
        def connect(node):
            connection = amqp.Connection(node.port, VHOST, USER, USER,
                                         time.monotonic() + self.AMQP_SECONDS, self.AMQP_SECONDS)
            try:
                act(connection)
            finally:
                connection.close()
        return self.by_admin_node(connect)

    @staticmethod
    def evaluate(node, code):
        printed = node.eval(code)
        if printed != "ok":
            raise ActionError(f"node {node.name} answers {printed!r} to {code}")

    def by_admin_node(self, act):
        """Acts by a node that is there; while the cluster is in trouble it is tried again, since
        whoever administrates a cluster would."""
        return self._again_and_again(lambda: act(self.admin_node()))

    def while_it_runs(self, node, act):
        """Acts by this node, unless it has ended, or does meanwhile."""
        def attempt():
            if node.running():
                act(node)
        self._again_and_again(attempt)

    def _again_and_again(self, attempt):
        deadline = time.monotonic() + self.WHOLE_SECONDS
        while True:
            try:
                return attempt()
            except (rabbitmq.FixtureError, subprocess.TimeoutExpired, ActionError,
                    amqp.AmqpError, OSError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)

    def wait_until_whole(self):
        """Waits until all nodes see each other and take clients again."""
        size = str(len(self.cluster.nodes))
        self.by_admin_node(lambda node: node.ctl("await_online_nodes", size, "--timeout", "30"))
        for node in self.cluster.nodes:
            if not rabbitmq.wait_until(lambda node=node: rabbitmq.answers(node.port),
                                       self.WHOLE_SECONDS):
                raise ActionError(f"node {node.name} does not take clients again")
