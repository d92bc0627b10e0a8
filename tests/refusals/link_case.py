"""What tests of the two links of a layer, and of what they make, have in common."""

import re

import rabbitmq

from case import Case, WAIT


class LinkCase(Case):
    def connections(self, queue):
        """The broker's processes for the connections of a layer: {"consume": ..., "publish": ...}."""
        listed = self.admin.eval("[{pid_to_list(P), N} || [{pid, P}, {client_properties, C}] <- "
                                 "rabbit_networking:connection_info_all([pid, client_properties]),"
                                 ' is_list(C), {<<"connection_name">>, _, N} <- C].')
        found = re.findall(rf'{{"(<[\d.]+>)",\s*<<"channel-layer {queue} (\w+)">>}}', listed)
        return {which: process for process, which in found}

    def close(self, process):
        self.admin.do(f'rabbit_networking:close_connection(list_to_pid("{process}"), "test").')

    def close_connection(self, queue, which):
        """Ends a connection, and waits until another is in its place."""
        before = self.connections(queue)
        self.close(before[which])
        self.assertTrue(rabbitmq.wait_until(
            lambda: self.connections(queue).get(which) not in (None, before[which]), WAIT))
        return before

    def eval(self, text, queue="", vhost="asgi"):
        names = f'V = <<"{vhost}">>, N = rabbit_misc:r(V, queue, <<"{queue}">>), ' \
                f'X = rabbit_misc:r(V, exchange, <<"groups">>), '
        return self.admin.eval(names + text)

    def member(self, group="room", **options):
        """A layer with a channel in a group: the process, the channel and the queue."""
        peer = self.ready(**options)
        channel = peer.ask("new-channel")["channel"]
        self.assert_status("LAYER_OK", peer.ask("group-add", group, channel))
        return peer, channel, channel.split("!")[0]

    def value(self, peer, stat):
        return peer.ask("stat", stat)["value"]

    def assert_hears(self, peer, channel, sender=None, group="room"):
        """What is sent to the channel and to its group arrives."""
        sender = sender or peer
        self.assert_status("LAYER_OK", sender.ask("send-json", channel, '{"n":100}'))
        self.assert_receives(peer, channel, 100)
        self.assert_status("LAYER_OK", sender.ask("group-send-json", group, '{"n":101}'))
        self.assert_receives(peer, channel, 101)
