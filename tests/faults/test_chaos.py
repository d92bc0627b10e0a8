#!/usr/bin/env python3
"""Tests of the row `chaos` without a broker: its schedule, its oracle, its messages."""

import os
import subprocess
import sys
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "fixture")]

import rabbitmq
from chaos import schedule
from chaos.actions import ACTIONS, Action, World
from chaos.control import message
from chaos.oracle import CONTROL, LAG, SETTLED, Oracle, Rules
from ledger import (CLOSED, DISCONNECTED, FULL, INTERNAL, NO_CHANNEL, OK, REFUSED, TIMEOUT,
                    TOO_LARGE, UNCONFIRMED)
from proxy import id_of

READY, CONNECTING, CLOSED_STATE = 1, 0, 3


class ScheduleTest(unittest.TestCase):
    SECONDS = 1200

    def test_the_same_seed_gives_the_same_schedule(self):
        self.assertEqual(schedule.plan(7, self.SECONDS), schedule.plan(7, self.SECONDS))

    def test_the_schedule_is_the_same_in_another_process(self):
        code = ("import sys; sys.path.insert(0, sys.argv[1]); from chaos import schedule; "
                "print(*schedule.plan(7, 1200), sep='\\n')")
        for hash_seed in ("1", "2"):
            printed = subprocess.run(
                [sys.executable, "-c", code, str(HERE)], check=True, capture_output=True, text=True,
                env={**os.environ, "PYTHONHASHSEED": hash_seed}).stdout
            self.assertEqual(printed.splitlines(), [str(s) for s in schedule.plan(7, 1200)])

    def test_another_seed_gives_another_schedule(self):
        self.assertNotEqual(schedule.plan(7, self.SECONDS), schedule.plan(8, self.SECONDS))

    def test_leaving_an_action_out_leaves_the_others_where_they_are(self):
        everything = schedule.plan(7, self.SECONDS)
        without = schedule.plan(7, self.SECONDS, ("node_killed", "alarm"))
        self.assertEqual(without, [step for step in everything
                                   if step.action not in ("node_killed", "alarm")])
        self.assertLess(len(without), len(everything))

    def test_a_step_is_read_as_a_person_gives_it(self):
        self.assertEqual(schedule.parse("exchange_deleted:18:0.5:7"),
                         schedule.Step(18, 0.5, "exchange_deleted", 7))
        for wrong in ("exchange_deleted:18:0", "exchange_removed:18:0:7", "alarm:soon:0:7"):
            with self.assertRaises(ValueError):
                schedule.parse(wrong)

    def test_actions_of_one_lane_do_not_overlap(self):
        for lane in schedule.LANES:
            steps = [step for step in schedule.plan(7, self.SECONDS)
                     if schedule.lane_of(step.action) == lane]
            self.assertGreater(len(steps), 10)
            for step, after in zip(steps, steps[1:]):
                self.assertLess(step.at + step.lasts, after.at)

    def test_each_period_ends_calm(self):
        for step in schedule.plan(7, self.SECONDS):
            storm = schedule.PERIOD - schedule.CALM
            self.assertLessEqual(step.at % schedule.PERIOD + step.lasts, storm + 0.01, step)
            self.assertLessEqual(step.at + step.lasts, self.SECONDS - schedule.CALM)

    def test_a_run_in_full_does_everything(self):
        for seed in (1, 2, 3):
            done = {step.action for step in schedule.plan(seed, self.SECONDS)}
            self.assertEqual(done, set(schedule.NAMES))

    def test_each_action_has_a_class_of_its_own(self):
        self.assertEqual(set(ACTIONS), set(schedule.NAMES))
        self.assertEqual(len(set(ACTIONS.values())), len(ACTIONS))
        for action in ACTIONS.values():
            self.assertIsNot(action.do, Action.do)


class EndingNode:
    """A node that is restarted while somebody asks it to act."""

    def __init__(self):
        self.asked = 0

    def running(self):
        return self.asked == 0

    def ctl(self, *_):
        self.asked += 1
        raise rabbitmq.FixtureError("rabbitmqctl ended with status -9")


class WorldTest(unittest.TestCase):
    def test_a_node_that_ends_while_it_is_asked_to_act_is_not_asked_again(self):
        world = World(None, (), None, 0, 0, 0, 0, 0)
        node = EndingNode()
        world.while_it_runs(node, lambda node: node.ctl("status"))
        self.assertEqual(node.asked, 1)


class MessageTest(unittest.TestCase):
    def test_a_ping_is_what_the_program_reads_and_the_wire_wants(self):
        body = message(0x0102, CONTROL, "__asgi_channel__", "q!c")
        self.assertEqual(id_of(body), 0x0102)
        self.assertEqual(body[0], 0x84)
        self.assertEqual(int.from_bytes(body[15:23], "big"), CONTROL)
        self.assertTrue(body.endswith(b"\xb0__asgi_channel__\xd9\x03q!c"))


class Story:
    """A history of a run, told to an oracle: two layers with a channel each, READY at 1 s."""

    def __init__(self):
        self.acked, self.returned = set(), set()
        self.oracle = Oracle(Rules(), self.acked, self.returned)
        for layer in (1, 2):
            self.feed(0.5, "N", layer, 0, f"queue{layer}!channel")
            self.feed(0.5, "V", layer, 0, 1)
            self.feed(1.0, "T", layer, READY, 1)
            self.feed(1.0, "M", layer, 0)

    def feed(self, at, kind, *words):
        self.oracle.feed(" ".join(map(str, (kind, round(at * 1e6), *words))))

    def send(self, at, number, kind="d", sequence=None, to=2, status=OK, acked=None, took=0.01):
        self.feed(at, "S", number, 5, sequence or number, kind, to, 0, 1)
        if (status == OK) if acked is None else acked:
            self.acked.add(number)
        if status is not None:
            self.feed(at + took, "O", number, status)

    def deliver(self, at, number, layer=2, sequence=None, sender=5):
        self.feed(at, "D", layer, 0, number, sender, sequence or number)

    def ping(self, at, number, kind="d", to=2, answer="acked"):
        self.oracle.ping_sent(number, at, kind, *((to, 0) if kind == "d" else (None, None)))
        if answer is not None:
            self.oracle.ping_answered(number, at + 0.01, answer)

    def probe(self, at, heard=True, took=0.05):
        self.oracle.probe_ended(self.oracle.probe_began(at), at + took, heard)

    def probe_until(self, begin, end, heard=True):
        at = begin
        while at < end:
            self.probe(at, heard)
            at += 1

    def until(self, at):
        self.feed(at, "K")
        self.oracle.advance(at)
        return self

    def rules(self):
        return [violation.rule for violation in self.oracle.violations]


class OracleTest(unittest.TestCase):
    def setUp(self):
        self.story = Story()

    def expect(self, *rules, until=30.0):
        """The rules that are violated by then, each once."""
        self.story.until(until)
        self.assertEqual(sorted(set(self.story.rules())), sorted(rules),
                         self.story.oracle.violations)

    # A run in which all is well.

    def test_a_run_in_order_violates_nothing(self):
        story = self.story
        story.probe_until(2, 20)
        for number in range(1000, 1100):
            at = 2 + number % 100 / 10
            story.send(at, number)
            story.deliver(at + 0.02, number)
            story.send(at + 0.03, number + 500, kind="g")
            for layer in (1, 2):
                story.deliver(at + 0.04, number + 500, layer=layer)
            story.ping(at + 0.05, number)
            story.deliver(at + 0.07, number, sender=CONTROL)
        self.expect()
        self.assertGreater(story.oracle.counts["readiness judged"], 10)
        self.assertEqual(story.oracle.counts["hearing judged"], 100)
        self.assertEqual(sum(story.oracle.losses.values()), 0)
        story.feed(31, "E", 10, 10)
        story.oracle.ended()
        self.assertEqual(story.rules(), [])

    # Lies.

    def test_ok_without_an_ack_is_a_lie(self):
        self.story.send(2, 1000, acked=False)
        self.story.deliver(2.1, 1000)
        self.expect("lie")

    def test_ok_for_what_was_returned_is_a_lie(self):
        self.story.returned.add(1000)
        self.story.send(2, 1000)
        self.story.deliver(2.1, 1000)
        self.expect("lie")

    def test_what_is_certainly_not_sent_does_not_arrive(self):
        for number, status in enumerate((FULL, NO_CHANNEL, DISCONNECTED, REFUSED), 1000):
            with self.subTest(status=status):
                self.story = Story()
                self.lose_ready(1.5)
                self.story.send(2, number, status=status)
                self.story.deliver(2.1, number)
                self.expect("denial")

    def test_what_arrived_is_not_called_unsent_afterwards(self):
        self.story.send(2, 1000, status=None)
        self.story.deliver(2.1, 1000)
        self.story.feed(2.2, "O", 1000, DISCONNECTED)
        self.expect("denial")

    def test_a_channel_of_a_ready_layer_is_there(self):
        self.story.send(5, 1000, status=NO_CHANNEL)
        self.expect("lie")

    def test_a_channel_whose_layer_is_not_ready_may_be_away(self):
        self.lose_ready()
        self.story.send(9, 1000, status=NO_CHANNEL)
        self.expect(until=15)
        self.story.feed(15, "T", 2, READY, 2)
        self.story.send(16, 1001, status=NO_CHANNEL)
        self.expect()

    def test_a_channel_may_be_away_while_something_is_done(self):
        self.story.oracle.disturb("queue_deleted", 4).end = 4.5
        self.story.oracle.divide("node_partitioned", 14).end = 14.5
        self.story.send(5, 1000, status=NO_CHANNEL)
        self.story.send(15, 1001, status=NO_CHANNEL)
        self.expect()

    def test_a_queue_whose_channels_are_read_is_not_full(self):
        self.story.send(5, 1000, status=FULL)
        self.expect("lie")

    def test_a_queue_with_an_unread_channel_may_be_full(self):
        self.story.feed(4, "V", 2, 0, 0)
        self.story.send(5, 1000, status=FULL)
        self.expect()

    def test_a_group_may_be_full_for_one_and_reach_the_other(self):
        self.story.send(2, 1000, kind="g", status=FULL)
        self.story.deliver(2.1, 1000, layer=1)
        self.expect()

    def test_what_nobody_knows_may_arrive(self):
        self.story.send(2, 1000, status=TIMEOUT, took=3.1)
        self.story.deliver(5.2, 1000)
        self.expect()

    def test_what_is_too_large_neither_is_ok_nor_arrives(self):
        self.story.send(2, 1000, kind="o", status=TOO_LARGE)
        self.expect()
        self.story.send(31, 1001, kind="o")
        self.expect("status", "loss", until=60)
        self.story = Story()
        self.story.send(2, 1000, kind="o", status=None)
        self.story.deliver(2.1, 1000)
        self.assertIn("lie", self.story.rules())

    def test_a_status_that_fits_no_fault_is_a_violation(self):
        for status in (INTERNAL, TOO_LARGE, CLOSED):
            with self.subTest(status=status):
                self.story = Story()
                self.story.send(2, 1000, status=status)
                self.expect("status")

    def test_a_layer_that_closes_may_say_closed(self):
        self.story.feed(2, "X", 1)
        self.story.send(2.1, 1000, status=CLOSED)
        self.expect()

    def test_a_group_add_that_ends_with_a_bug_is_a_violation(self):
        self.story.feed(2, "A", "layer_group_add", 1000, INTERNAL, 3000)
        self.expect("status")

    def test_a_child_that_is_not_told_of_the_fork_is_a_violation(self):
        self.story.feed(2, "F", "layer_send", 13, 0)
        self.expect("fork")

    # Duplicates, order, outcomes.

    def test_a_message_arrives_once(self):
        self.story.send(2, 1000)
        self.story.deliver(2.1, 1000)
        self.story.deliver(2.2, 1000)
        self.assertIn("duplicate", self.story.rules())

    def test_a_ping_arrives_once(self):
        self.story.ping(2, 1000)
        self.story.deliver(2.1, 1000, sender=CONTROL)
        self.story.deliver(2.2, 1000, sender=CONTROL)
        self.expect("duplicate")

    def test_a_message_arrives_where_it_was_sent_to(self):
        self.story.send(2, 1000)
        self.story.deliver(2.1, 1000, layer=1)
        self.assertIn("misdelivery", self.story.rules())

    def test_a_ping_arrives_where_it_was_sent_to(self):
        self.story.ping(2, 1000, answer=None)
        self.story.deliver(2.1, 1000, layer=1, sender=CONTROL)
        self.expect("misdelivery")

    def test_nobody_invents_a_message(self):
        self.story.deliver(2.1, 1000)
        self.story.deliver(2.1, 1001, sender=CONTROL)
        self.assertEqual(self.story.rules(), ["invention", "invention"])

    def test_messages_of_one_sender_keep_their_order(self):
        self.story.send(2, 1000)
        self.story.send(2.1, 1001)
        self.story.deliver(2.2, 1001)
        self.story.deliver(2.3, 1000)
        self.expect("order")

    def test_a_message_of_unknown_fate_may_arrive_late(self):
        self.story.send(2, 1000, status=UNCONFIRMED)
        self.story.send(2.1, 1001)
        self.story.deliver(2.2, 1001)
        self.story.deliver(2.3, 1000)
        self.expect()

    def test_a_send_has_one_outcome(self):
        self.story.send(2, 1000)
        self.story.deliver(2.1, 1000)
        self.story.feed(2.2, "O", 1000, OK)
        self.expect("outcome")

    # Losses.

    def test_a_confirmed_message_that_a_ready_layer_never_gets_is_lost(self):
        self.story.send(2, 1000)
        self.expect(until=2 + SETTLED)
        self.expect("loss", until=3 + SETTLED)

    def test_a_message_that_one_member_of_a_group_misses_is_lost(self):
        self.story.send(2, 1000, kind="g")
        self.story.deliver(2.1, 1000, layer=1)
        self.expect("loss")

    def lose_connection(self, at):
        self.story.oracle.activate("connections_cut", at).end = at + 0.1
        self.story.feed(at + 0.2, "T", 2, CONNECTING, 1)
        self.story.feed(at + 0.5, "T", 2, READY, 2)

    def test_a_message_may_be_lost_with_its_queue(self):
        self.story.send(2, 1000)
        self.lose_connection(2.1)
        self.expect()
        self.assertEqual(self.story.oracle.losses, {"its connection was lost": 1})

    def test_what_a_later_queue_gives_says_nothing_of_an_earlier_one(self):
        self.story.send(2, 1000)
        self.lose_connection(2.1)
        self.story.send(3, 1001)
        self.story.deliver(3.01, 1001)
        self.expect()

    def test_a_message_is_not_lost_with_a_queue_that_gave_the_next(self):
        self.story.send(2, 1000)
        self.story.send(2.05, 1001)
        self.story.deliver(2.06, 1001)
        self.lose_connection(2.1)
        self.expect("loss")

    def test_a_message_to_a_layer_that_is_not_ready_may_be_lost(self):
        self.lose_connection(2.0)
        self.story.send(2.3, 1000)
        self.expect()

    def test_the_broker_may_lose_what_an_admin_deletes(self):
        self.story.oracle.activate("queue_deleted", 2, 3, loses=True).end = 2.5
        self.story.send(3, 1000)
        self.expect()
        self.story.send(40, 1001)
        self.expect("loss", until=60)

    def test_a_channel_that_nobody_receives_from_may_lose(self):
        self.story.feed(2, "V", 2, 0, 0)
        self.story.send(3, 1000)
        self.expect()

    # Hangs.

    def test_a_send_that_takes_too_long_hangs(self):
        self.story.send(2, 1000, status=TIMEOUT, took=5.1)
        self.expect("hang")

    def test_a_send_without_an_outcome_hangs_as_soon_as_it_is_late(self):
        self.story.send(2, 1000, status=None)
        self.expect(until=7.2)
        self.expect("hang", until=7.4)

    def test_a_call_that_takes_too_long_hangs(self):
        self.story.feed(9, "A", "layer_group_add", 5_100_000, OK, 3000)
        self.expect("hang")
        self.story = Story()
        self.story.feed(9, "C", 1, 3_100_000, OK, 1000)
        self.expect("hang")

    def test_a_program_that_says_nothing_hangs(self):
        self.story.until(5)
        self.story.oracle.advance(9)
        self.assertEqual(self.story.rules(), ["hang"])

    # Readiness.

    def lose_ready(self, at=5.0, until=5.1):
        self.story.oracle.activate("connections_cut", at - 0.1).end = until
        self.story.oracle.disturb("connections_cut", at - 0.1).end = until
        self.story.feed(at, "T", 2, CONNECTING, 1)

    def test_a_layer_is_ready_2_s_after_the_control_client_hears(self):
        self.lose_ready()
        self.story.probe_until(2, 12)
        self.expect("liveness", until=9)
        self.assertGreater(self.story.oracle.gap, 1.9)

    def test_a_layer_that_is_ready_in_time_is_alive(self):
        self.lose_ready()
        self.story.probe_until(2, 12)
        self.story.feed(7, "T", 2, READY, 2)
        self.expect(until=14)
        self.assertAlmostEqual(self.story.oracle.gap, 0.95, places=2)

    def test_a_layer_that_is_ready_too_late_is_not_alive(self):
        self.lose_ready()
        self.story.probe(5.2)
        self.story.feed(7.3, "T", 2, READY, 2)
        self.expect("liveness")

    def test_nobody_is_ready_where_the_control_client_hears_nothing(self):
        self.lose_ready()
        self.story.probe_until(2, 5)
        self.story.probe_until(5.2, 20, heard=False)
        self.expect(until=25)

    def test_readiness_waits_for_the_control_client_to_hear_all_the_time(self):
        self.lose_ready()
        for at in range(6, 20):
            self.story.probe(at, heard=at % 2 == 0)
        self.expect(until=25)

    def test_a_probe_under_way_puts_the_judgement_off(self):
        self.lose_ready()
        self.story.probe(5.2)
        under_way = self.story.oracle.probe_began(6.2)
        self.expect(until=12)
        self.story.oracle.probe_ended(under_way, 12, True)
        self.expect("liveness", until=12.1)

    def test_what_is_being_done_puts_readiness_off(self):
        self.lose_ready(until=50)
        self.story.probe_until(2, 40)
        self.expect(until=45)

    def test_what_cannot_be_noticed_yet_puts_readiness_off(self):
        self.story.oracle.activate("node_frozen", 5).end = 20
        self.story.oracle.disturb("node_frozen", 5, unnoticed=3).end = 5
        self.story.feed(5.1, "T", 2, CONNECTING, 1)
        self.story.probe_until(5, 12)
        self.expect(until=9)
        self.expect("liveness", until=13)

    def test_a_layer_that_opens_becomes_ready(self):
        self.story.feed(5, "N", 3, 0, "queue3!channel")
        self.story.probe_until(5.5, 12)
        self.expect("liveness", until=12)

    def test_a_layer_that_closes_need_not_be_ready(self):
        self.story.feed(5, "X", 2)
        self.story.feed(5, "T", 2, CLOSED_STATE, 1)
        self.story.probe_until(2, 12)
        self.expect(until=14)

    def test_a_layer_stays_ready_while_nothing_is_done(self):
        self.story.feed(5, "T", 2, CONNECTING, 1)
        self.story.feed(5.1, "T", 2, READY, 2)
        self.expect("stability")

    def test_a_layer_may_lose_its_connection_while_something_is_done(self):
        self.story.oracle.activate("node_killed", 4.9)
        self.story.feed(5, "T", 2, CONNECTING, 1)
        self.story.feed(5.1, "T", 2, READY, 2)
        self.expect()

    def test_a_queue_is_not_lost_with_the_connection_that_publishes(self):
        self.story.oracle.activate("publishers_cut", 5, spares_queues=True).end = 5
        self.story.feed(5.1, "T", 2, CONNECTING, 1)
        self.story.feed(5.3, "T", 2, READY, 1)
        self.expect()
        self.story.oracle.activate("publishers_cut", 40, spares_queues=True).end = 40
        self.story.feed(40.1, "T", 2, CONNECTING, 1)
        self.story.feed(40.3, "T", 2, READY, 2)
        self.expect("contagion", until=50)

    def test_a_queue_may_be_lost_with_all_connections(self):
        self.story.oracle.activate("publishers_cut", 5, spares_queues=True).end = 5
        self.lose_connection(4.9)
        self.expect()

    # Hearing.

    def test_a_ready_layer_that_does_not_hear_a_ping_is_deaf(self):
        for kind in ("d", "g"):
            with self.subTest(kind=kind):
                self.story = Story()
                self.story.ping(5, 1000, kind)
                if kind == "g":
                    self.story.deliver(5.1, 1000, layer=1, sender=CONTROL)
                self.expect("deafness")

    def test_a_ready_layer_whose_queue_is_gone_or_full_or_hangs_is_deaf(self):
        for answer in ("returned", "nacked", "unanswered"):
            with self.subTest(answer=answer):
                self.story = Story()
                self.story.ping(5, 1000, answer=answer)
                self.expect("deafness")

    def test_a_ping_that_comes_late_shows_deafness(self):
        self.story.ping(5, 1000)
        self.story.deliver(6.2, 1000, sender=CONTROL)
        self.expect("deafness")

    def test_hearing_is_judged_as_soon_as_it_is_due(self):
        self.story.ping(5, 1000)
        self.expect(until=6.5 + LAG)
        self.expect("deafness", until=6.6 + LAG)

    def test_an_unread_channel_may_delay_its_neighbours_by_stall_after(self):
        self.story.feed(0.6, "N", 2, 1, "queue2!other")
        self.story.feed(4, "V", 2, 1, 0)
        self.story.ping(5, 1000)
        self.story.deliver(6.3, 1000, sender=CONTROL)
        self.expect(until=10)
        self.story.ping(15, 1001)
        self.story.deliver(16.6, 1001, sender=CONTROL)
        self.expect("deafness")

    def test_a_channel_that_nobody_reads_hears_nothing(self):
        self.story.feed(4, "V", 2, 0, 0)
        self.story.ping(5, 1000)
        self.expect()
        self.assertEqual(self.story.oracle.counts["hearing judged"], 0)

    def test_a_layer_that_is_not_ready_hears_nothing(self):
        self.lose_ready()
        self.story.ping(5.5, 1000)
        self.expect(until=10)

    def test_a_disturbance_excuses_what_is_not_heard(self):
        self.story.oracle.disturb("exchange_deleted", 3, unnoticed=3).end = 4
        self.story.ping(5, 1000)
        self.expect(until=10)
        self.story.ping(15, 1001)
        self.expect("deafness")

    def test_a_divided_broker_excuses_what_is_not_heard_and_not_readiness(self):
        self.story.oracle.divide("node_partitioned", 3, unnoticed=3).end = 4
        self.story.ping(5, 1000)
        self.expect(until=10)
        self.story.ping(15, 1001)
        self.expect("deafness")
        self.story = Story()
        self.story.oracle.divide("node_partitioned", 3)
        self.lose_ready()
        self.story.probe_until(2, 12)
        self.expect("liveness")

    def test_a_name_of_a_queue_that_was_replaced_is_not_heard(self):
        self.story.feed(4, "Q", 2)
        self.story.ping(5, 1000)
        self.expect(until=10)
        self.story.ping(15, 1001, kind="g")
        self.story.deliver(15.1, 1001, layer=1, sender=CONTROL)
        self.expect("deafness")

    # The end.

    def test_all_userdata_is_destroyed(self):
        self.story.feed(5, "E", 10, 9)
        self.story.oracle.ended()
        self.assertEqual(self.story.rules(), ["end"])

    def test_a_program_says_that_it_ends(self):
        self.story.oracle.ended()
        self.assertEqual(self.story.rules(), ["end"])

    def test_what_has_no_outcome_at_the_end_hangs(self):
        self.story.send(5, 1000, status=None)
        self.story.feed(5.1, "E", 10, 10)
        self.story.oracle.ended()
        self.assertEqual(self.story.rules(), ["hang"])

    def test_what_was_lost_before_the_end_is_found(self):
        self.story.send(5, 1000)
        self.story.feed(5.1, "E", 10, 10)
        self.story.oracle.ended()
        self.assertEqual(self.story.rules(), ["loss"])


if __name__ == "__main__":
    unittest.main()
