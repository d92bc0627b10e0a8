"""The exchange of a layer's own, to which its groups are bound, and which outlives its connection: whatever
of it is lost is noticed and made again, and a broker that does not allow it is served without."""

import re
import time
import unittest

import rabbitmq

from case import LEAST, WAIT
from link_case import LinkCase

GENERATION, GROUPS_BOUND, BOUND_AGAIN = "16", "23", "bound_again"

DELETE = 'rabbit_exchange:delete(rabbit_misc:r(V, exchange, <<"{}">>), false, <<"test">>)'
GROUPS_ANEW = """
    ok = rabbit_exchange:delete(X, false, <<"test">>),
    rabbit_exchange:declare(X, direct, false, false, false, [], <<"test">>), ok.
"""
UNBIND = """
    [rabbit_binding:remove(B, fun(_, _) -> ok end, <<"test">>) || B <- rabbit_binding:list(V),
        element(2, B) =:= rabbit_misc:r(V, exchange, <<"{}">>), element(3, B) =:= <<"{}">>,
        element(4, B) =:= rabbit_misc:r(V, exchange, <<"{}">>)]
"""
# All in one, so that it is all of one moment.
WHAT_THERE_IS = """
    [{e, Name} || X2 <- rabbit_exchange:list(V), {resource, _, _, Name} <- [element(2, X2)]] ++
    [{q, Name, Count} || Q <- rabbit_amqqueue:list(V), {resource, _, _, Name} <- [amqqueue:get_name(Q)],
        Count <- [catch length(rabbit_amqqueue:consumers(Q))], is_integer(Count)] ++
    [{b, To, Key} || B <- rabbit_binding:list(V), {resource, _, _, <<"groups">>} <- [element(2, B)],
        Key <- [element(3, B)], {resource, _, _, To} <- [element(4, B)]].
"""
NAME = r'\s*<<"([^"]*)">>'


class There:
    """What the broker has of one layer."""

    def __init__(self, text, queue):
        def of_layer(names):
            return [name for name in names if name.startswith(f"{queue}.groups.")]
        exchanges = of_layer(re.findall(rf"{{e,{NAME}}}", text))
        self.exchanges = [name for name in exchanges if ".intake." not in name and ".part." not in name]
        self.parts = [name for name in exchanges if ".part." in name]
        self.intakes = [name for name in exchanges if ".intake." in name]
        self.consumers = dict(re.findall(rf"{{q,{NAME},\s*(\d+)}}", text))
        self.queues = len(self.consumers)
        kept = of_layer(self.consumers)
        self.keepers = [name for name in kept if self.consumers[name] == "1"]
        self.old_keepers = [name for name in kept if self.consumers[name] == "0"]
        self._bindings = re.findall(rf"{{b,{NAME},{NAME}}}", text)

    def one(self):
        """The names of the one private exchange, its intake and its keeper."""
        (exchange,), (intake,), (keeper,) = self.exchanges, self.intakes, self.keepers
        return {"exchange": exchange, "intake": intake, "keeper": keeper}

    def groups(self, destination):
        return sorted(key for name, key in self._bindings
                      if name == destination and not key.startswith("!"))


class PrivateCase(LinkCase):
    def there(self, queue, vhost="asgi"):
        return There(self.eval(WHAT_THERE_IS, vhost=vhost), queue)

    def join(self, peer, channel, numbers):
        for number in numbers:
            self.assert_status("LAYER_OK", peer.ask("group-add", f"group-{number}", channel))

    def private(self, queue):
        """The one private exchange that a layer has, its intake and its keeper; and all there is."""
        there = self.there(queue)
        return *there.one().values(), there

    def wait_lost(self, peer, generation):
        """A new connection stands, and so does all that it needs."""
        self.assertTrue(rabbitmq.wait_until(
            lambda: self.value(peer, GENERATION) > generation, WAIT))
        self.wait_ready(peer)

    def wait_ready(self, peer):
        """A layer that was refused says so until it is ready again."""
        self.assertTrue(rabbitmq.wait_until(
            lambda: peer.ask("wait-ready", "1000")["status"] == "LAYER_OK", WAIT), peer.log())

    def delete_queue(self, name):
        self.eval("{ok, Q} = rabbit_amqqueue:lookup(N), "
                  '{ok, _} = rabbit_amqqueue:delete(Q, false, false, <<"test">>).', name)

    def lose(self, peer, queue):
        generation = self.value(peer, GENERATION)
        self.close(self.connections(queue)["consume"])
        self.wait_lost(peer, generation)

    def keep_away(self, peer, queue):
        """Ends the consuming connection of a layer of `user`, which is refused until `let_in`."""
        self.admin.change_password("user", "other")
        self.addCleanup(self.admin.change_password, "user", "user")
        self.close(self.connections(queue)["consume"])
        self.assert_logs(peer, "refused")

    def let_in(self, peer, generation):
        self.admin.change_password("user", "user")
        self.wait_lost(peer, generation)

    def user_member(self, **options):
        self.permit(".*", ".*", ".*")
        return self.member(user="user", reconnect_max=0.5, **options)


class WhatOutlivesTheConnection(PrivateCase):
    def test_a_lost_connection_binds_no_group_again(self):
        peer, channel, queue = self.member()
        exchange, intake, keeper, there = self.private(queue)
        self.assertEqual(there.groups(exchange), ["room"])
        for _ in range(2):
            self.lose(peer, queue)
            self.assert_hears(peer, channel)
        now, later, held, there = self.private(queue)
        self.assertEqual(now, exchange)
        self.assertNotEqual(later, intake)
        self.assertNotEqual(held, keeper)
        self.assertEqual(there.groups(exchange), ["room"])
        self.assertNotIn(BOUND_AGAIN, peer.records())

    def test_what_is_joined_and_left_without_a_connection_is_made_up_for(self):
        peer, channel, queue = self.user_member(unbind_after=0, timeout=2)
        exchange, _, _, _ = self.private(queue)
        for group in ("stays", "left"):
            self.assert_status("LAYER_OK", peer.ask("group-add", group, channel))
        generation = self.value(peer, GENERATION)
        self.keep_away(peer, queue)
        self.assert_status("LAYER_OK", peer.ask("group-discard", "left", channel))
        # Its membership stays, though nobody can say yet that it is bound.
        self.assert_status("LAYER_REFUSED", peer.ask("group-add", "joined", channel))
        self.let_in(peer, generation)
        self.assertTrue(rabbitmq.wait_until(
            lambda: self.there(queue).groups(exchange) == ["joined", "room", "stays"], WAIT))
        other = self.ready()
        for number, group in enumerate(("joined", "stays", "room")):
            self.assert_status("LAYER_OK", other.ask("group-send-json", group, f'{{"n":{number}}}'))
            self.assert_receives(peer, channel, number)

    def test_a_group_without_members_is_unbound_after_unbind_after(self):
        for after, groups in ((60, ["room"]), (0.1, [])):
            peer, channel, queue = self.member(unbind_after=after)
            self.assert_status("LAYER_OK", peer.ask("group-discard", "room", channel))
            self.assertTrue(rabbitmq.wait_until(
                lambda: self.value(peer, GROUPS_BOUND) == len(groups), WAIT))
            exchange, _, _, there = self.private(queue)
            self.assertEqual(there.groups(exchange), groups)
            self.assert_status("LAYER_OK", peer.ask("group-add", "room", channel))
            self.assert_hears(peer, channel)

    def test_many_groups_are_spread_over_parts_which_outlive_a_connection_and_go_with_the_keeper(self):
        peer, channel, queue = self.member()
        groups = [f"group-{number}" for number in range(2500)]
        self.join(peer, channel, range(2500))
        exchange, _, _, there = self.private(queue)
        self.assertEqual(sorted(there.parts), [f"{exchange}.part.{number}" for number in (1, 2)])
        bound = [len(there.groups(name)) for name in (exchange, *sorted(there.parts))]
        self.assertEqual(bound, [1000, 1000, 501])
        self.lose(peer, queue)
        for number, group in ((1, groups[0]), (2, groups[1500]), (3, groups[2499])):
            self.assert_status("LAYER_OK", peer.ask("group-send-json", group, f'{{"n":{number}}}'))
            self.assert_receives(peer, channel, number)
        self.assertNotIn(BOUND_AGAIN, peer.records())
        # The new connection binds to a part, and unbinds from it, without having made it.
        self.assert_status("LAYER_OK", peer.ask("group-discard", groups[1500], channel))
        self.assertTrue(rabbitmq.wait_until(lambda: self.value(peer, GROUPS_BOUND) == 2500, WAIT))
        self.assert_status("LAYER_OK", peer.ask("group-add", "another", channel))
        there = self.there(queue)
        self.assertEqual([len(there.groups(name)) for name in (exchange, *sorted(there.parts))], bound)
        self.assertIn("another", there.groups(f"{exchange}.part.1"))
        peer.close()
        self.assertTrue(rabbitmq.wait_until(lambda: self.there(queue).keepers == [], WAIT))
        # That of the lost connection and of this one.
        for keeper in self.there(queue).old_keepers:
            self.delete_queue(keeper)
        there = self.there(queue)
        self.assertEqual((there.exchanges, there.parts, there.groups(f"{exchange}.part.1")), ([], [], []))

    def test_close_leaves_what_the_broker_deletes_by_itself(self):
        peer, _, queue = self.member()
        exchange, _, keeper, _ = self.private(queue)
        peer.close()
        self.assertTrue(rabbitmq.wait_until(
            lambda: self.there(queue).old_keepers == [keeper], WAIT))
        there = self.there(queue)
        self.assertEqual((there.exchanges, there.intakes), ([exchange], []))
        arguments = self.eval("{ok, Q} = rabbit_amqqueue:lookup(N), amqqueue:get_arguments(Q).", keeper)
        self.assertRegex(arguments, r'<<"x-expires">>,\w+,60000}')
        # What its expiry does, without the minute until then.
        self.delete_queue(keeper)
        there = self.there(queue)
        self.assertEqual((there.exchanges, there.groups(exchange)), ([], []))


class WhatAnAdminDeletes(PrivateCase):
    """The broker has no way to tell a layer of these: a probe finds out, or the next connection does."""

    def test_a_lost_part_of_the_way_is_made_again_and_outlives_the_next_connection(self):
        lost = {"the private exchange": DELETE.format("{exchange}"),
                "the intake": DELETE.format("{intake}"),
                "the probe key": UNBIND.format("groups", "!{exchange}", "{exchange}"),
                "the way to the intake": UNBIND.format("{exchange}", "#", "{intake}")}
        peers = {what: self.member(group=f"group-{number}", heartbeat=1)
                 for number, what in enumerate(lost)}
        text, deletes = self.eval(WHAT_THERE_IS), []
        before = {}
        for what, (_, _, queue) in peers.items():
            before[what] = There(text, queue).one()
            deletes.append(lost[what].format(**before[what]))
        self.eval(", ".join(deletes) + ", ok.")
        for number, (what, (peer, channel, queue)) in enumerate(peers.items()):
            with self.subTest(what):
                self.assert_logs(peer, BOUND_AGAIN)
                self.wait_ready(peer)
                self.assert_hears(peer, channel, group=f"group-{number}")
                self.assertEqual(self.value(peer, GENERATION), 1, "the queue stays")
        for _, _, queue in peers.values():
            self.close(self.connections(queue)["consume"])
        for peer, _, _ in peers.values():
            self.wait_lost(peer, 1)
        text = self.eval(WHAT_THERE_IS)
        for number, (what, (peer, channel, queue)) in enumerate(peers.items()):
            with self.subTest(what):
                self.assert_hears(peer, channel, group=f"group-{number}")
                self.assertEqual(peer.records().count(BOUND_AGAIN), 1)
                there = There(text, queue)
                (exchange,) = set(there.exchanges) - {before[what]["exchange"]}
                self.assertEqual(there.groups(exchange), [f"group-{number}"])
                self.assertEqual(len(there.intakes), 1)

    def test_a_deleted_part_is_noticed_and_its_groups_are_bound_again(self):
        peer, channel, queue = self.member(heartbeat=1)
        self.join(peer, channel, range(1200))
        before = self.private(queue)[0]
        self.eval(DELETE.format(f"{before}.part.1") + ", ok.")
        self.assert_logs(peer, BOUND_AGAIN)
        self.wait_ready(peer)
        for number in (0, 1100, 1199):
            self.assert_hears(peer, channel, group=f"group-{number}")
        self.assertEqual(self.value(peer, GENERATION), 1, "the queue stays")

    def test_a_part_that_is_deleted_while_the_layer_is_away_is_not_made_without_its_groups(self):
        for joins_while_away in (False, True):
            with self.subTest(joins_while_away=joins_while_away):
                peer, channel, queue = self.user_member(heartbeat=60, timeout=2)
                self.join(peer, channel, range(1200))
                before = self.private(queue)[0]
                generation = self.value(peer, GENERATION)
                self.keep_away(peer, queue)
                self.eval(DELETE.format(f"{before}.part.1") + ", ok.")
                # What comes first to the part finds out.
                if joins_while_away:
                    peer.ask("group-add", "another", channel)
                    self.let_in(peer, generation)
                else:
                    self.let_in(peer, generation)
                    peer.ask("group-add", "another", channel)
                    self.assert_logs(peer, BOUND_AGAIN)
                self.wait_ready(peer)
                for group in ("another", "group-1100", "group-1199"):
                    self.assert_hears(peer, channel, group=group)

    def test_a_part_that_is_made_when_the_private_exchange_is_gone_does_not_stay(self):
        peer, channel, queue = self.member(heartbeat=60)
        self.join(peer, channel, range(999))
        # The last probe comes 3 s after the first READY, and would find out before the part does.
        time.sleep(4)
        before = self.private(queue)[0]
        self.eval(DELETE.format(before) + ", ok.")
        peer.ask("group-add", "another", channel)
        self.assert_logs(peer, BOUND_AGAIN)
        self.wait_ready(peer)
        self.assert_hears(peer, channel, group="another")
        exchange, _, _, there = self.private(queue)
        self.assertNotEqual(exchange, before)
        self.assertEqual(there.parts, [f"{exchange}.part.1"])

    def test_a_groups_exchange_without_its_bindings_has_all_of_them_again(self):
        peer, channel, queue = self.member(heartbeat=1)
        before = self.private(queue)[0]
        self.eval(GROUPS_ANEW)
        self.assert_logs(peer, BOUND_AGAIN)
        self.wait_ready(peer)
        self.assert_hears(peer, channel)
        there = self.there(queue)
        (exchange,) = set(there.exchanges) - {before}
        self.assertEqual(there.groups(exchange), ["room"])

    def test_who_may_not_probe_takes_no_binding_for_granted(self):
        other, _, _ = self.member()
        peer, channel, queue = self.user_member()
        self.permit(".*", r"^(channels_.*|amq\.default)$", ".*")
        generation = self.value(peer, GENERATION)
        self.keep_away(peer, queue)
        self.eval(GROUPS_ANEW)
        self.let_in(peer, generation)
        self.assert_logs(peer, BOUND_AGAIN)
        self.wait_ready(peer)
        self.assertTrue(rabbitmq.wait_until(
            lambda: other.ask("wait-ready", "1000")["status"] == "LAYER_OK", WAIT))
        self.assert_status("LAYER_OK", other.ask("group-send-json", "room", '{"n":7}'))
        self.assert_receives(peer, channel, 7)

    def test_the_keeper_is_made_again_and_nothing_else(self):
        peer, channel, queue = self.member(heartbeat=1)
        exchange, intake, keeper, _ = self.private(queue)
        self.delete_queue(keeper)
        self.assertTrue(rabbitmq.wait_until(
            lambda: self.there(queue).keepers not in ([], [keeper]), WAIT))
        self.assert_hears(peer, channel)
        self.assertEqual(self.private(queue)[:2], (exchange, intake))
        self.assertNotIn(BOUND_AGAIN, peer.records())
        self.lose(peer, queue)
        self.assert_hears(peer, channel)
        self.assertEqual(self.private(queue)[0], exchange)

    def test_a_queue_that_is_bound_directly_too_gets_one_copy(self):
        peer, channel, queue = self.member()
        self.eval('Added = {binding, X, <<"room">>, N, []}, '
                  'rabbit_binding:add(Added, fun(_, _) -> ok end, <<"test">>), ok.', queue)
        there = self.there(queue)
        self.assertEqual((there.groups(queue), there.groups(there.exchanges[0])),
                         (["room"], ["room"]))
        for number in range(3):
            self.assert_status("LAYER_OK", peer.ask("group-send-json", "room", f'{{"n":{number}}}'))
        for number in range(3):
            self.assert_receives(peer, channel, number)

    def test_a_single_binding_is_made_again_soon_after_the_next_connection(self):
        peer, channel, queue = self.member()
        exchange = self.private(queue)[0]
        self.eval(UNBIND.format("groups", "room", exchange) + ", ok.")
        self.lose(peer, queue)
        self.assertTrue(rabbitmq.wait_until(
            lambda: self.there(queue).groups(exchange) == ["room"], WAIT))
        self.assert_hears(peer, channel)

    def test_what_is_deleted_while_the_layer_is_away_is_made_again(self):
        for delete in (DELETE.format("{exchange}") + ", ok.", GROUPS_ANEW):
            with self.subTest(delete):
                peer, channel, queue = self.user_member(heartbeat=1)
                exchange = self.private(queue)[0]
                generation = self.value(peer, GENERATION)
                self.keep_away(peer, queue)
                self.eval(delete.format(exchange=exchange))
                self.let_in(peer, generation)
                self.assert_hears(peer, channel)


class ABrokerThatAllowsNone(PrivateCase):
    def assert_bound_directly(self, peer, channel, queue, vhost="asgi"):
        self.lose(peer, queue)
        self.assert_hears(peer, channel)
        self.assertEqual(peer.records().count("bound_directly"), 1)
        there = self.there(queue, vhost)
        self.assertEqual((there.exchanges, there.intakes), ([], []))
        self.assertEqual(there.groups(queue), ["room"])

    def test_with_a_part_of_the_rights_for_it_nothing_of_it_is_left(self):
        self.ready()  # it declares the groups exchange
        # The keeper and the exchange may be made, and not bound.
        self.permit(".*", r"^(groups|amq\.default|channels_[A-Za-z]{12})$", ".*")
        peer, channel, queue = self.member(user="user")
        self.assert_bound_directly(peer, channel, queue)

    def test_without_the_right_to_configure_it_groups_are_bound_to_the_queue(self):
        self.ready()  # it declares the groups exchange
        self.permit("^channels_[A-Za-z]{12}$", LEAST["write"], LEAST["read"])
        peer, channel, queue = self.member(user="user", unbind_after=0)
        # One with and one without share the group, and each has each message once.
        other, far, _ = self.member()
        for number, sender in enumerate((peer, other, peer, other)):
            answer = sender.ask("group-send-json", "room", f'{{"n":{number}}}')
            self.assert_status("LAYER_OK", answer)
            self.assert_receives(peer, channel, number)
            self.assert_receives(other, far, number)
        self.assert_status("LAYER_OK", other.ask("group-discard", "room", far))
        for group in ("hall", "gate"):
            self.assert_status("LAYER_OK", peer.ask("group-add", group, channel))
        self.assert_status("LAYER_OK", peer.ask("group-discard", "hall", channel))
        self.assertTrue(rabbitmq.wait_until(lambda: self.value(peer, GROUPS_BOUND) == 2, WAIT))
        self.assert_status("LAYER_OK", peer.ask("group-discard", "gate", channel))
        self.assert_bound_directly(peer, channel, queue)

    def test_where_no_other_queue_may_be_made_groups_are_bound_to_the_queue(self):
        # In a vhost of its own, since keepers of other layers come and go.
        self.admin.set_vhost_limits("queues", '{"max-queues":1}')
        self.addCleanup(self.admin.clear_vhost_limits, "queues")
        peer, channel, queue = self.member(vhost="queues")
        self.assert_bound_directly(peer, channel, queue, "queues")

    def test_where_no_part_may_be_made_all_groups_are_bound_to_one_exchange(self):
        self.ready()  # it declares the groups exchange
        self.permit(r"^(?!.*\.part\.).*$", ".*", ".*")
        peer, channel, queue = self.member(user="user", reconnect_max=0.5)
        self.join(peer, channel, range(999))
        self.assertNotIn("bound_together", peer.records())
        peer.ask("group-add", "group-999", channel)
        self.assert_logs(peer, "bound_together")
        self.wait_ready(peer)
        for lost in (False, True):
            if lost:
                self.lose(peer, queue)
            self.assert_hears(peer, channel, group="group-999")
            self.assert_hears(peer, channel, group="group-0")
        self.assertEqual(peer.records().count("bound_together"), 1)
        there = self.there(queue)
        # Those of the first try go with their keepers.
        self.assertEqual(there.parts, [])
        self.assertIn(1001, [len(there.groups(exchange)) for exchange in there.exchanges])

    def test_a_user_with_few_channels_has_many_groups_bound_over_one(self):
        peer, channel, queue = self.user_member(heartbeat=1)
        for number in range(1500):
            self.assert_status("LAYER_OK", peer.ask("group-add", f"group-{number}", channel))
        # Two for publishing and four for consuming are needed: there is one more lane.
        self.admin.set_user_limits("user", '{"max-channels":7}')
        self.addCleanup(self.admin.clear_user_limits, "user")
        generations = []
        for _ in range(2):
            before = peer.records().count(BOUND_AGAIN)
            self.eval(GROUPS_ANEW)
            self.assertTrue(rabbitmq.wait_until(
                lambda: peer.records().count(BOUND_AGAIN) > before, WAIT))
            self.assertTrue(rabbitmq.wait_until(
                lambda: self.value(peer, GROUPS_BOUND) == 1501, WAIT))
            self.wait_ready(peer)
            self.assert_hears(peer, channel)
            generations.append(self.value(peer, GENERATION))
        # It asked for too many once, and has learned.
        self.assertIn("530", peer.log())
        self.assertGreater(generations[0], 1)
        self.assertEqual(generations[0], generations[1])


if __name__ == "__main__":
    unittest.main()
