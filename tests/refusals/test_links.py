"""What becomes of one connection, queue or binding of a layer costs nothing else, and a layer that says
that it is ready hears what is sent to it."""

import signal
import time

import rabbitmq

from case import LONG_ENOUGH, WAIT
from link_case import LinkCase

GENERATION, QUEUE_RENAMES, READY, DROPPED_REDELIVERED = "16", "38", "32", "10"
HELD = {"local_capacity": 1, "prefetch_count": 1, "stall_after": 0}


class OneConnectionOfTwo(LinkCase):
    def test_a_lost_publishing_connection_keeps_queue_and_generation(self):
        peer, channel, queue = self.member(**HELD)
        for number in range(5):
            self.assert_status("LAYER_OK", peer.ask("send-json", channel, f'{{"n":{number}}}'))
        before = self.close_connection(queue, "publish")
        self.assert_status("LAYER_OK", peer.ask("wait-ready", str(WAIT * 1000)))
        # Some of them were in the queue, which a lost connection of its own would have deleted.
        for number in range(5):
            self.assert_receives(peer, channel, number)
        self.assertEqual(self.connections(queue)["consume"], before["consume"])
        self.assertEqual(self.value(peer, GENERATION), 1)
        self.assert_hears(peer, channel)

    def test_a_lost_consuming_connection_leaves_the_publishing_one_alone(self):
        peer, channel, queue = self.member()
        other, far, _ = self.member()
        before = self.close_connection(queue, "consume")
        self.assert_status("LAYER_OK", peer.ask("send-json", far, '{"n":1}'))
        self.assert_receives(other, far, 1)
        self.assert_status("LAYER_OK", peer.ask("wait-ready", str(WAIT * 1000)))
        self.assertEqual(self.connections(queue)["publish"], before["publish"])
        self.assertEqual(self.value(peer, GENERATION), 2)
        self.assert_hears(peer, channel, other)


    def refused_at_its_next_login(self, which):
        """A layer one of whose connections is ended, and whose user has another password since."""
        self.permit(".*", ".*", ".*")
        peer, channel, queue = self.member(user="user", reconnect_max=0.5)
        self.admin.change_password("user", "other")
        self.addCleanup(self.admin.change_password, "user", "user")
        self.close(self.connections(queue)[which])
        self.assert_logs(peer, "refused")
        return peer, channel

    def test_sends_go_on_while_only_the_consuming_connection_is_refused(self):
        other, far, _ = self.member()
        peer, _ = self.refused_at_its_next_login("consume")
        self.assert_status("LAYER_REFUSED", peer.ask("wait-ready", "0"))
        self.assert_status("LAYER_OK", peer.ask("send-json", far, '{"n":1}'))
        self.assert_receives(other, far, 1)
        self.admin.change_password("user", "user")
        self.assertTrue(rabbitmq.wait_until(
            lambda: peer.ask("wait-ready", "100")["status"] == "LAYER_OK", WAIT))

    def test_groups_can_be_joined_while_only_the_publishing_connection_is_refused(self):
        other, _, _ = self.member()
        peer, channel = self.refused_at_its_next_login("publish")
        self.assert_status("LAYER_REFUSED", peer.ask("send-json", channel, '{"n":0}'))
        self.assert_status("LAYER_OK", peer.ask("group-add", "hall", channel))
        self.assert_status("LAYER_OK", other.ask("group-send-json", "hall", '{"n":1}'))
        self.assert_receives(peer, channel, 1)


class WhatIsBound(LinkCase):
    def test_groups_are_bound_again_though_an_alternate_exchange_takes_their_messages(self):
        self.eval('rabbit_exchange:declare(rabbit_misc:r(V, exchange, <<"other">>), fanout, false, '
                  'false, false, [], <<"test">>).')
        self.node.ctl("set_policy", "-p", "asgi", "--apply-to", "exchanges", "alternate", "^groups$",
                      '{"alternate-exchange":"other"}')
        self.addCleanup(self.node.ctl, "clear_policy", "-p", "asgi", "alternate")
        peer, channel, _ = self.member(heartbeat=1)
        self.eval('ok = rabbit_exchange:delete(X, false, <<"test">>), rabbit_exchange:declare(X, '
                  'direct, false, false, false, [], <<"test">>), ok.')
        self.assert_logs(peer, "bound_again")
        self.assert_status("LAYER_OK", peer.ask("wait-ready", str(WAIT * 1000)))
        self.assert_hears(peer, channel)
        self.assertEqual(self.value(peer, GENERATION), 1)

    def test_a_right_to_write_that_is_missing_costs_no_connection(self):
        self.member()  # it declares the exchange
        for write in ("^(channels_.*|amq.default)$", "^(channels_.*|groups)$", "^channels_.*$"):
            self.permit(".*", write, ".*")
            peers = [self.ready(user="user") for _ in range(6)]
            for peer in peers:
                self.assert_logs(peer, "exchange_not_checked")
                self.assertFalse({"connection_lost", "connection_failed"} & set(peer.records()))
                peer.close()

    def test_a_right_to_write_that_comes_back_is_probed_again(self):
        self.member()  # it declares the exchange
        self.permit(".*", "^(channels_.*|amq.default)$", ".*")
        peer, channel, _ = self.member(user="user", heartbeat=1)
        self.assert_logs(peer, "exchange_not_checked")
        self.permit(".*", ".*", ".*")
        self.eval('ok = rabbit_exchange:delete(X, false, <<"test">>), rabbit_exchange:declare(X, '
                  'direct, false, false, false, [], <<"test">>), ok.')
        self.assert_logs(peer, "bound_again")
        self.assert_status("LAYER_OK", peer.ask("wait-ready", str(WAIT * 1000)))
        self.assert_hears(peer, channel)

    def test_a_message_to_a_group_waits_for_an_exchange_that_is_gone(self):
        peer, channel, _ = self.member(heartbeat=60)
        # The last probe comes 3 s after the first READY, and would find out before the message does.
        time.sleep(4)
        self.eval('rabbit_exchange:delete(X, false, <<"test">>).')
        self.assert_status("LAYER_OK", peer.ask("group-send-json", "room", '{"n":1}'))
        self.assert_receives(peer, channel, 1)
        self.assertEqual(self.value(peer, GENERATION), 1)

    def test_a_late_clean_up_of_an_earlier_queue_does_not_leave_a_layer_deaf(self):
        peer, channel, queue = self.member(heartbeat=1)
        # The broker forgets the queue and its bindings; the process of the queue and its consumer
        # live on, and so does the connection.
        self.eval('rabbit_amqqueue:internal_delete(N, <<"test">>).', queue)
        self.assertTrue(rabbitmq.wait_until(lambda: self.value(peer, GENERATION) > 1, WAIT))
        self.assert_status("LAYER_OK", peer.ask("wait-ready", str(WAIT * 1000)))
        self.assert_hears(peer, channel)

    def test_a_queue_that_is_full_for_five_heartbeats_keeps_its_generation(self):
        peer, channel, _ = self.member(heartbeat=1, remote_capacity=1, **HELD)
        sent = 0
        while peer.ask("send-json", channel, f'{{"n":{sent}}}')["status"] == "LAYER_OK":
            sent += 1
        time.sleep(5)
        self.assert_status("LAYER_FULL", peer.ask("send-json", channel, '{"n":99}'))
        self.assertEqual((self.value(peer, GENERATION), self.value(peer, READY)), (1, 1))
        for number in range(sent):
            self.assert_receives(peer, channel, number)


class TheOwnPast(LinkCase):
    def test_a_queue_whose_name_stays_taken_gets_another_and_channels_keep_theirs(self):
        peer, channel, queue = self.member()
        other, far, _ = self.member()
        consuming = self.connections(queue)["consume"]
        peer.send_signal(signal.SIGSTOP)
        self.close(consuming)
        # Its name is free for a moment; another process takes it.
        taker = self.ready(queue_name=queue)
        self.addCleanup(taker.close)
        peer.send_signal(signal.SIGCONT)
        began = time.monotonic()
        self.assert_logs(peer, "queue_renamed")
        self.assert_status("LAYER_OK", peer.ask("wait-ready", str(WAIT * 1000)))
        self.assertLess(time.monotonic() - began, LONG_ENOUGH)
        self.assertEqual(self.value(peer, QUEUE_RENAMES), 1)
        new = peer.ask("new-channel")["channel"]
        self.assertNotEqual(new.split("!")[0], queue)
        self.assert_status("LAYER_OK", other.ask("send-json", new, '{"n":1}'))
        self.assert_receives(peer, new, 1)
        # The channel with the old name is in its group as before, and may join others.
        self.assert_status("LAYER_OK", other.ask("group-send-json", "room", '{"n":2}'))
        self.assert_receives(peer, channel, 2)
        self.assert_status("LAYER_OK", peer.ask("group-add", "hall", channel))
        self.assert_status("LAYER_OK", other.ask("group-send-json", "hall", '{"n":3}'))
        self.assert_receives(peer, channel, 3)


class ConsumerTimeouts(LinkCase):
    def setUp(self):
        # The broker looks once in each tick; channels read both when they are opened.
        self.set("consumer_timeout", 2000)
        self.set("channel_tick_interval", 1000)

    def test_messages_that_are_held_for_longer_are_delivered_once_and_the_queue_stays(self):
        peer, channel, _ = self.member(local_capacity=0, prefetch_count=10)
        for number in range(3):
            self.assert_status("LAYER_OK", peer.ask("send-json", channel, f'{{"n":{number}}}'))
        self.assert_logs(peer, "consumer_timed_out")
        self.assert_status("LAYER_OK", peer.ask("send-json", channel, '{"n":3}'))
        for number in range(4):
            self.assert_receives(peer, channel, number)
        self.assert_status("LAYER_TIMEOUT", peer.ask("receive", channel, "500"))
        self.assertEqual(self.value(peer, DROPPED_REDELIVERED), 0, "they are known")
        self.assertEqual(self.value(peer, GENERATION), 1)
        self.assert_hears(peer, channel)
