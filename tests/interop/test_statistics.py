"""What layer_stats_prometheus writes is what a Prometheus client reads."""

import unittest

from prometheus_client.parser import text_string_to_metric_families

from test_interop import Peer


class Statistics(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self):
        self.peer = await Peer.open()
        self.addAsyncCleanup(self.peer.close)

    async def read(self, labels):
        text = await self.peer.prometheus(labels)
        return list(text_string_to_metric_families(text))

    async def test_every_statistic_is_a_sample_of_a_metric_that_is_described(self):
        families = await self.read('site="a",zone="b"')
        samples = [sample for family in families for sample in family.samples]
        known = 0
        while (await self.peer.ask("stat", str(known + 1)))["status"] == "LAYER_OK":
            known += 1
        self.assertEqual(len(samples), known)
        self.assertGreaterEqual(known, 32)
        self.assertEqual(len({family.name for family in families}), len(families))
        for family in families:
            with self.subTest(family.name):
                self.assertTrue(family.name.startswith("channel_layer_"))
                self.assertTrue(family.documentation)
                self.assertIn(family.type, ("counter", "gauge"))
                total = all(sample.name.endswith("_total") for sample in family.samples)
                self.assertEqual(family.type == "counter", total)
        for sample in samples:
            self.assertEqual((sample.labels["site"], sample.labels["zone"]), ("a", "b"))

    async def test_values_and_labels_are_read_as_they_were_meant(self):
        channel = await self.peer.new_channel()
        for n in range(3):
            self.assertEqual(await self.peer.send_json(channel, {"n": n}), "LAYER_OK")
        self.assertEqual(await self.peer.send_json("channels_gone!x", {}), "LAYER_NO_CHANNEL")
        values = {}
        for family in await self.read(r'site="a\"b\\c\nd"'):
            for sample in family.samples:
                self.assertEqual(sample.labels.pop("site"), 'a"b\\c\nd')
                values[(sample.name, *sample.labels.values())] = sample.value
        self.assertEqual(values["channel_layer_sends_total",], 4)
        self.assertEqual(values["channel_layer_send_outcomes_total", "confirmed"], 3)
        self.assertEqual(values["channel_layer_send_outcomes_total", "no_channel"], 1)
        self.assertEqual(values["channel_layer_ready",], 1)
        self.assertEqual(values["channel_layer_generation",], 1)
        self.assertEqual(values["channel_layer_reconnects_total",], 0)
        outcomes = [value for key, value in values.items()
                    if key[0] == "channel_layer_send_outcomes_total"]
        self.assertEqual(sum(outcomes), 4)


if __name__ == "__main__":
    unittest.main()
