"""The C API over TLS: what works, and what users are told of what does not; run.sh starts it.

The C side is tests/interop/peer.c, a process with one layer, driven line by line.
"""

import errno
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import unittest
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import quote

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "fixture"))
import certificates  # noqa: E402  (found by the line above)
import rabbitmq  # noqa: E402

PEER = os.environ["CHANNEL_LAYER_TEST_PEER"]
WAIT = 30  # seconds for what is sure to come
GENERATION = "16"  # LAYER_STAT_GENERATION
USER, PASSWORD = "someone", "s3cr3t/w:rd"
USERS = (rabbitmq.User(USER, PASSWORD, rabbitmq.VHOSTS),
         rabbitmq.User("nobody", PASSWORD, ()))  # may log in, but to no vhost


def debug_prints_in(text):
    """What of a text was written for programmers: names as `UnknownIssuer`, lists of bytes."""
    return re.findall(r"[A-Z][a-z]+(?:[A-Z][a-z]+)+|\[\d+, |\w \{", text)


def secrets_in(text, keys):
    """What of the password and the private keys stands in a text."""
    found = [word for word in (PASSWORD, quote(PASSWORD, safe="")) if word in text]
    for key in keys:
        lines = Path(key).read_text(encoding="ascii").splitlines()
        found.extend(line for line in lines if re.fullmatch("[A-Za-z0-9+/=]{16,}", line)
                     and line in text)
    return found


class World:
    """The authorities, certificates and nodes of all tests."""

    def __init__(self, stack):
        self.authority = stack.enter_context(certificates.Authority())
        # Of the same name, so that it is told apart by its key alone.
        self.stranger = stack.enter_context(certificates.Authority())
        server = self.authority.server()
        self.client = self.authority.client()
        strict = rabbitmq.Tls(server, clients_from=self.authority.file, required=True)
        old = rabbitmq.Tls(server, clients_from=self.authority.file, required=True)
        self.open = rabbitmq.Node(users=USERS, tls=rabbitmq.Tls(server))
        stack.callback(self.open.close)
        self.strict = rabbitmq.Node(users=USERS, tls=strict)
        stack.callback(self.strict.close)
        self.old = rabbitmq.Node(users=USERS, tls=old,
                                 settings=("ssl_options.versions.1 = tlsv1.2",))
        stack.callback(self.old.close)
        self.server = server
        with ThreadPoolExecutor() as pool:
            list(pool.map(rabbitmq.Node.start, (self.open, self.strict, self.old)))

    def trusting(self, node, host="localhost", **options):
        """The options of a layer that trusts the node's authority."""
        return {"host": node.tls_url(user=USER, host=host), "tls_ca_file": self.authority.file,
                **options}

    def showing(self, certificate, node=None):
        """The options of a layer that also shows a certificate."""
        return self.trusting(node or self.strict, tls_cert_file=certificate.file,
                             tls_key_file=certificate.key)


def setUpModule():
    global WORLD
    stack = ExitStack()
    unittest.addModuleCleanup(stack.close)
    WORLD = World(stack)


class Peer:
    """A C process with a layer of its own."""

    def __init__(self, options, ready_ms=WAIT * 1000, environment=None):
        self.keys = [value for name, value in options.items() if name == "tls_key_file"]
        self._errors = tempfile.TemporaryFile(mode="w+", encoding="utf-8")
        words = [f"{name}={value}" for name, value in options.items()]
        self._process = subprocess.Popen(
            [PEER, "log=stderr", f"ready-ms={ready_ms}", *words], text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors,
            env={**os.environ, **(environment or {})})
        self.said = []
        self.opened = self._answer()

    def _answer(self):
        line = self._process.stdout.readline()
        if not line:
            raise AssertionError(f"the peer ended with status {self._process.wait()}: {self.log}")
        self.said.append(line)
        return json.loads(line)

    def ask(self, *words):
        self._process.stdin.write(" ".join(words) + "\n")
        self._process.stdin.flush()
        return self._answer()

    @property
    def log(self):
        self._errors.seek(0)
        return self._errors.read()

    def records(self, record):
        """The texts of the log records with this id."""
        return re.findall(rf"^log \d+ {record} \S+ (.*)$", self.log, re.MULTILINE)

    def close(self):
        self._process.stdin.close()
        status = self._process.wait(WAIT)
        self._process.stdout.close()
        log = self.log
        self._errors.close()
        return status, log


class Case(unittest.TestCase):
    """What all tests need. No test ends before it has looked for secrets in what was said."""

    def open(self, options, **more):
        peer = Peer(options, **more)
        self.addCleanup(self.end, peer)
        return peer

    def end(self, peer):
        status, log = peer.close()
        self.assertEqual(status, 0 if peer.opened["status"] == "LAYER_OK" else 1, log)
        text = log + "".join(peer.said)
        self.assertEqual(secrets_in(text, [key for key in peer.keys if Path(key).is_file()]), [])

    def assert_works(self, options, **more):
        """Opens a layer, sends and receives; the layer."""
        peer = self.open(options, **more)
        self.assertEqual(peer.opened["status"], "LAYER_OK", peer.opened)
        self.assert_sends(peer)
        return peer

    def assert_sends(self, peer):
        channel = peer.ask("new-channel")["channel"]
        sent = {"type": "greeting", "text": "hello"}
        answer = peer.ask("send-json", channel, json.dumps(sent))
        self.assertEqual(answer["status"], "LAYER_OK", answer)
        answer = peer.ask("receive", channel, str(WAIT * 1000))
        self.assertEqual(answer.get("json"), sent, answer)

    def assert_refused(self, options, *words, status="LAYER_REFUSED", record="refused", user=USER,
                       **more):
        """The layer is refused, and the error and a record of the log say why: the host and each of
        `words`."""
        peer = self.open(options, **more)
        self.assertEqual(peer.opened["status"], status, peer.opened)
        self.assertEqual(debug_prints_in(peer.opened["error"]), [], peer.opened)
        shown = re.sub("//.*@", f"//{user}:***@", options["host"])
        for word in (shown, *words):
            self.assertIn(word, peer.opened["error"])
        self.assert_logs(peer, record, shown, *words)
        return peer

    def assert_given_up(self, options, *words, **more):
        """The layer goes on trying, and the error and the log say what has failed so far."""
        return self.assert_refused(options, *words, status="LAYER_TIMEOUT",
                                   record="connection_failed", **more)

    def assert_logs(self, peer, record, *words):
        """There is a record with this id that has all words, now or soon: it is told by a thread of
        its own."""
        def is_there():
            return any(all(word in text for word in words) for text in peer.records(record))
        self.assertTrue(rabbitmq.wait_until(is_there, WAIT), peer.log)

    def assert_connects_again(self, peer):
        """Another consuming connection stands, and the layer is ready again."""
        self.assertTrue(rabbitmq.wait_until(
            lambda: peer.ask("stat", GENERATION)["value"] > 1, WAIT), peer.log)
        # Until then it says what the last attempt of the other connection met.
        self.assertTrue(rabbitmq.wait_until(
            lambda: peer.ask("wait-ready", "1000")["status"] == "LAYER_OK", WAIT), peer.log)

    def assert_no_layer(self, options, *words, **more):
        """layer_new itself fails, and says why."""
        peer = self.open({"host": "amqps://nobody.invalid", **options}, **more)
        self.assertEqual(peer.opened["status"], "LAYER_INVALID", peer.opened)
        for word in words:
            self.assertIn(word, peer.opened["error"])


class ShowsCertificates(Case):
    """What tests need that change the broker's certificate."""

    def tearDown(self):
        if WORLD.open.certificate != WORLD.server:
            WORLD.open.change_certificate(WORLD.server)

    def show(self, **changes):
        """Has the open node show another certificate until the end of the test."""
        WORLD.open.change_certificate(WORLD.authority.server(**changes))

    def trusting(self, file, host="localhost"):
        """The options of a layer for the open node that trusts the certificates of a file."""
        return WORLD.trusting(WORLD.open, host=host) | {"tls_ca_file": file}


class TheBroker(ShowsCertificates):
    """Whom we take for the broker."""

    def test_is_known_by_its_name_and_by_its_address(self):
        for host in ("localhost", "127.0.0.1"):
            with self.subTest(host=host):
                self.assert_works(WORLD.trusting(WORLD.open, host=host))

    def test_is_taken_with_each_key_that_the_documents_name(self):
        for key in ("RSA", "EC", "P-384", "Ed25519"):
            with self.subTest(key=key):
                self.show(key=key)
                self.assert_works(WORLD.trusting(WORLD.open))

    def test_of_another_authority_is_refused(self):
        options = WORLD.trusting(WORLD.open)
        options["tls_ca_file"] = WORLD.stranger.file
        self.assert_refused(options, "tls_ca_file", str(WORLD.stranger.file))

    def test_of_an_authority_of_its_own_is_refused_where_none_is_named(self):
        options = {"host": WORLD.open.tls_url(user=USER)}
        self.assert_refused(options, "tls_ca_file")

    def test_of_an_authority_of_the_system_needs_no_option(self):
        environment = {"SSL_CERT_FILE": str(WORLD.authority.file)}
        self.assert_works({"host": WORLD.open.tls_url(user=USER)}, environment=environment)

    def test_of_an_authority_of_the_system_is_refused_where_another_is_named(self):
        options = WORLD.trusting(WORLD.open)
        options["tls_ca_file"] = WORLD.stranger.file
        environment = {"SSL_CERT_FILE": str(WORLD.authority.file)}
        self.assert_refused(options, str(WORLD.stranger.file), environment=environment)

    def test_of_one_of_several_authorities_in_a_file_is_taken(self):
        with tempfile.NamedTemporaryFile("w", suffix=".pem") as bundle:
            for authority in (WORLD.stranger, WORLD.authority):
                bundle.write("# a comment\n" + authority.file.read_text(encoding="ascii"))
            bundle.flush()
            self.assert_works(WORLD.trusting(WORLD.open) | {"tls_ca_file": bundle.name})

    def test_whose_certificate_is_for_others_is_refused(self):
        self.show(names=("rabbit.example.org",), addresses=("127.0.0.1", "192.0.2.1"))
        self.assert_refused(WORLD.trusting(WORLD.open), "is not for 'localhost'",
                            "rabbit.example.org", "192.0.2.1")
        self.assert_works(WORLD.trusting(WORLD.open, host="127.0.0.1"))

    def test_whose_certificate_is_for_another_address_is_refused(self):
        self.show(names=("localhost",), addresses=())
        self.assert_refused(WORLD.trusting(WORLD.open, host="127.0.0.1"),
                            "is not for '127.0.0.1'", "localhost")

    def test_whose_certificate_names_no_host_is_refused(self):
        self.show(names=(), addresses=())
        self.assert_refused(WORLD.trusting(WORLD.open), "names no host",
                            "subject alternative name")

    def test_whose_certificate_has_expired_is_refused(self):
        self.show(since=-10, until=-3.5)
        self.assert_refused(WORLD.trusting(WORLD.open), "expired 3 days ago", "renew it")

    def test_whose_certificate_is_not_valid_yet_is_refused(self):
        self.show(since=5.5, until=10)
        self.assert_refused(WORLD.trusting(WORLD.open), "not valid for another 5 days", "clock")

    def test_that_refuses_us_does_not_stand_in_the_way_of_one_that_takes_us(self):
        bad, good = WORLD.trusting(WORLD.strict), WORLD.trusting(WORLD.open)
        self.assert_works(good | {"host": f"{bad['host']},{good['host']}"})


class TheReason(ShowsCertificates):
    """Why a broker's certificate is refused: by a certificate made for each reason."""

    def assert_reason(self, certificate, *words, authority=None):
        WORLD.open.change_certificate(certificate)
        file = (authority or WORLD.authority).file
        return self.assert_refused(self.trusting(file), *words)

    def authority(self, **more):
        authority = certificates.Authority(**more)
        self.addCleanup(authority.close)
        return authority

    def test_is_told_of_a_ca_that_is_not_in_the_file(self):
        unknown = self.authority(name="another authority")
        self.assert_reason(WORLD.server, "trusted CA", "intermediate", str(unknown.file),
                           authority=unknown)

    def test_is_told_of_a_signature_by_a_ca_of_the_same_name(self):
        self.assert_reason(WORLD.server, "same name", "private key", str(WORLD.stranger.file),
                           authority=WORLD.stranger)

    def test_is_told_of_one_that_is_a_ca_and_not_in_the_file(self):
        server = WORLD.authority.server(by="itself", extensions=AS_OPENSSL_MAKES_THEM)
        self.assert_reason(server, "CA:TRUE", "tls_ca_file", str(WORLD.authority.file))

    def test_is_told_of_one_that_is_a_ca_where_the_systems_are_trusted(self):
        WORLD.open.change_certificate(
            WORLD.authority.server(by="itself", extensions=AS_OPENSSL_MAKES_THEM))
        self.assert_refused({"host": WORLD.open.tls_url(user=USER, host="localhost")}, "CA:TRUE",
                            "tls_ca_file",
                            environment={"SSL_CERT_FILE": str(WORLD.authority.file)})

    def test_is_told_of_a_purpose_that_is_another(self):
        for usage, words in (("clientAuth", ["clientAuth"]), ("1.2.3.4", ["1.2.3.4"]),
                             ("DER:30:00", ["empty"])):
            with self.subTest(usage=usage):
                server = WORLD.authority.server(extensions={"extendedKeyUsage": usage})
                self.assert_reason(server, "serverAuth", *words)

    def test_is_told_of_a_signature_that_cannot_be_verified(self):
        for authority, more, words in (
            (WORLD.authority, {"digest": "sha512"}, ["ECDSA with SHA-512"]),
            (self.authority(key="P-521"), {}, ["ECDSA with SHA-256", "ECDSA on P-521"]),
            (self.authority(key="P-521"), {"digest": "sha512"}, ["ECDSA with SHA-512"]),
        ):
            with self.subTest(words=words):
                self.assert_reason(authority.server(**more), "P-384", "Ed25519", *words,
                                   authority=authority)

    def test_is_told_of_what_the_broker_knows_not_to_be_verifiable(self):
        # It ends the handshake itself: none of the signatures that we can verify fits.
        self.assert_reason(WORLD.authority.server(key="P-521"), "P-521", "P-384")
        old = self.authority(key="RSA")
        self.assert_reason(old.server(digest="sha1"), "signature", "SHA-256", authority=old)

    def test_is_told_of_an_rsa_key_that_is_too_short(self):
        self.assert_reason(WORLD.authority.server(key="RSA-1024"), "2048 bits")
        short = self.authority(key="RSA-1024")
        self.assert_reason(short.server(), "2048 bits", authority=short)

    def test_is_told_of_an_unknown_critical_extension(self):
        server = WORLD.authority.server(extensions={"1.2.3.4": "critical, ASN1:UTF8String:x"})
        self.assert_reason(server, "critical extension")

    def test_is_told_of_names_that_its_ca_may_not_issue_for(self):
        constrained = self.authority(constraints="permitted;DNS:example.org")
        self.assert_reason(constrained.server(), "name constraints", "'localhost'",
                           authority=constrained)
        odd = self.authority(constraints="permitted;IP:127.0.0.0/255.0.255.0")
        self.assert_reason(odd.server(), "name constraint", "malformed", authority=odd)

    def test_is_told_of_a_chain_that_is_not_one(self):
        authority = WORLD.authority
        last = authority.signer("last", extensions={"basicConstraints": "critical, CA:TRUE, "
                                                                        "pathlen:0"})
        below = authority.signer("below", by=last)
        self.assert_reason(authority.server(by=below), "path length")
        leaf = authority.signer("leaf", extensions={"basicConstraints": "critical, CA:FALSE"})
        self.assert_reason(authority.server(by=leaf), "basic constraints")
        signer = None
        for depth in range(7):
            signer = authority.signer(f"number {depth}", by=signer)
        self.assert_reason(authority.server(by=signer), "than the 6")

    def test_is_told_of_version_1(self):
        self.assert_reason(WORLD.authority.version_1(), "version 1")

    def test_is_told_of_dates_in_the_wrong_order(self):
        self.assert_reason(WORLD.authority.server(since=5, until=-5), "ends before it begins")

    def test_is_told_of_an_intermediate_certificate_that_has_expired(self):
        expired = WORLD.authority.signer("expired", since=-10, until=-3.5)
        self.assert_reason(WORLD.authority.server(by=expired), "intermediate",
                           "expired 3 days ago")

    def test_is_told_of_an_extension_that_is_malformed(self):
        # The list of certificate transparency: the broker itself does not look at that.
        malformed = {"1.3.6.1.4.1.11129.2.4.2": "DER:05:00"}
        self.assert_reason(WORLD.authority.server(extensions=malformed), "malformed")


# What `openssl req -x509` writes into a certificate that signs itself.
AS_OPENSSL_MAKES_THEM = {"basicConstraints": "critical, CA:TRUE", "keyUsage": None,
                         "extendedKeyUsage": None}


class TheFileOfTheBrokersOwnCertificate(ShowsCertificates):
    """A certificate in tls_ca_file is trusted as it is, whoever has signed it."""

    def each(self, test, **more):
        """Tests a certificate of each kind, shown by the broker."""
        for kind, made in (
            ("CA", {"by": "itself", "extensions": AS_OPENSSL_MAKES_THEM}),
            ("CA, SHA-512", {"by": "itself", "digest": "sha512",
                             "extensions": AS_OPENSSL_MAKES_THEM}),
            ("no CA", {"by": "itself"}),
            ("of another CA", {}),
        ):
            with self.subTest(kind=kind):
                server = WORLD.stranger.server(**made, **more)
                WORLD.open.change_certificate(server)
                test(server, made)

    def test_is_trusted_for_its_names(self):
        def test(server, _):
            for host in ("localhost", "127.0.0.1"):
                self.assert_works(self.trusting(server.file, host=host))

        self.each(test)

    def test_is_trusted_for_its_names_with_tls_1_2(self):
        self.addCleanup(WORLD.old.change_certificate, WORLD.server)
        server = WORLD.stranger.server(by="itself", extensions=AS_OPENSSL_MAKES_THEM)
        WORLD.old.change_certificate(server)
        self.assert_works(WORLD.showing(WORLD.client, WORLD.old) | {"tls_ca_file": server.file})

    def test_is_trusted_beside_others_in_the_file(self):
        server = WORLD.stranger.server(by="itself", extensions=AS_OPENSSL_MAKES_THEM)
        WORLD.open.change_certificate(server)
        with tempfile.NamedTemporaryFile("w", suffix=".pem") as bundle:
            for file in (WORLD.authority.file, server.file):
                bundle.write(file.read_text(encoding="ascii"))
            bundle.flush()
            self.assert_works(self.trusting(bundle.name))
            WORLD.open.change_certificate(WORLD.server)
            self.assert_works(self.trusting(bundle.name))

    def test_is_refused_for_another_name(self):
        def test(server, _):
            self.assert_refused(self.trusting(server.file), "is not for 'localhost'",
                                "rabbit.example.org")

        self.each(test, names=("rabbit.example.org",), addresses=())

    def test_is_refused_outside_its_dates(self):
        def expired(server, _):
            self.assert_refused(self.trusting(server.file), "expired 3 days ago")

        def early(server, _):
            self.assert_refused(self.trusting(server.file), "another 5 days")

        self.each(expired, since=-10, until=-3.5)
        self.each(early, since=5.5, until=10)

    def test_is_not_mistaken_for_one_of_the_same_name_with_another_key(self):
        def test(_, made):
            twin = WORLD.stranger.server(**made)
            self.assert_refused(self.trusting(twin.file), "tls_ca_file", str(twin.file))

        self.each(test)

    def test_is_refused_where_it_is_for_clients(self):
        server = WORLD.stranger.server(extensions={"extendedKeyUsage": "clientAuth"})
        WORLD.open.change_certificate(server)
        self.assert_refused(self.trusting(server.file), "serverAuth")


class TheTextOfCertificates(ShowsCertificates):
    """tls_ca_pem: certificates to trust, as text."""

    def text(self, authority):
        return authority.file.read_text(encoding="ascii")

    def options(self, **more):
        return {"host": WORLD.open.tls_url(user=USER, host="localhost"), **more}

    def test_is_trusted(self):
        self.assert_works(self.options(tls_ca_pem=self.text(WORLD.authority)))

    def test_is_trusted_as_the_brokers_own_certificate(self):
        server = WORLD.authority.server(by="itself", extensions=AS_OPENSSL_MAKES_THEM)
        WORLD.open.change_certificate(server)
        self.assert_works(self.options(tls_ca_pem=self.text(server)))

    def test_is_trusted_beside_a_file_and_the_file_beside_it(self):
        one, other = WORLD.authority, WORLD.stranger
        for file, text in ((one, other), (other, one)):
            with self.subTest(file=file):
                self.assert_works(
                    self.options(tls_ca_file=file.file, tls_ca_pem=self.text(text)))

    def test_of_another_authority_is_refused(self):
        self.assert_refused(self.options(tls_ca_pem=self.text(WORLD.stranger)),
                            "tls_ca_pem")
        self.assert_refused(
            self.options(tls_ca_pem=self.text(WORLD.stranger), tls_ca_file=WORLD.stranger.file),
            "tls_ca_pem", str(WORLD.stranger.file))

    def test_is_trusted_instead_of_the_authorities_of_the_system(self):
        self.assert_refused(self.options(tls_ca_pem=self.text(WORLD.stranger)), "tls_ca_pem",
                            environment={"SSL_CERT_FILE": str(WORLD.authority.file)})

    def test_that_is_no_certificate_is_refused_and_never_shown(self):
        key = WORLD.client.key.read_text(encoding="ascii")
        for text in (key, "s3cr3t", key.replace("PRIVATE KEY", "CERTIFICATE")):
            peer = self.open({"host": "amqps://nobody.invalid", "tls_ca_pem": text})
            self.assertEqual(peer.opened["status"], "LAYER_INVALID", peer.opened)
            self.assertIn("tls_ca_pem", peer.opened["error"])
            said = peer.opened["error"] + peer.log
            self.assertNotIn("s3cr3t", said)
            self.assertEqual(secrets_in(said, [WORLD.client.key]), [])


class TheClient(Case):
    """Whom the broker takes us for."""

    def test_is_taken_with_a_key_of_each_kind(self):
        for kind in ("EC", "RSA"):
            client = WORLD.authority.client(key=kind)
            for name, each in (("PKCS#8", client),
                               ("of old", WORLD.authority.rewritten(client, "traditional"))):
                with self.subTest(kind=kind, form=name):
                    first = each.key.read_text(encoding="ascii").splitlines()[0]
                    words = "BEGIN PRIVATE" if name == "PKCS#8" else f"BEGIN {kind} PRIVATE"
                    self.assertIn(words, first)
                    self.assert_works(WORLD.showing(each))

    def test_is_taken_with_each_key_that_the_documents_name(self):
        for key in ("RSA", "EC", "P-384", "Ed25519"):
            with self.subTest(key=key):
                self.assert_works(WORLD.showing(WORLD.authority.client(key=key)))

    def test_is_taken_with_all_in_one_file(self):
        with tempfile.NamedTemporaryFile("w", suffix=".pem") as both:
            for file in (WORLD.client.key, WORLD.client.file):
                both.write(file.read_text(encoding="ascii"))
            both.flush()
            self.assert_works(WORLD.showing(certificates.Certificate(both.name, both.name)))

    def test_without_a_certificate_is_refused(self):
        self.assert_refused(WORLD.trusting(WORLD.strict), "asks for a client certificate",
                            "tls_cert_file", "tls_key_file")

    def test_with_an_expired_certificate_is_refused(self):
        expired = WORLD.authority.client(since=-10, until=-3)
        self.assert_refused(WORLD.showing(expired), str(expired.file), "expired")

    def test_of_another_authority_is_refused(self):
        stranger = WORLD.stranger.client()
        self.assert_refused(WORLD.showing(stranger), str(stranger.file), "tls_cert_file")

    def test_on_tls_1_2_is_taken_or_refused_alike(self):
        self.assert_works(WORLD.showing(WORLD.client, WORLD.old))
        self.assert_refused(WORLD.trusting(WORLD.old), "asks for a client certificate",
                            "tls_cert_file", "tls_key_file")
        expired = WORLD.authority.client(since=-10, until=-3)
        self.assert_refused(WORLD.showing(expired, WORLD.old), str(expired.file), "expired")
        stranger = WORLD.stranger.client()
        self.assert_refused(WORLD.showing(stranger, WORLD.old), str(stranger.file),
                            "tls_cert_file")

    def test_may_be_unknown_where_the_broker_does_not_ask(self):
        self.assert_works(WORLD.showing(WORLD.stranger.client(), WORLD.open))

    def test_with_a_wrong_password_is_refused_inside_tls(self):
        options = WORLD.trusting(WORLD.open)
        options["host"] = options["host"].replace(quote(PASSWORD, safe=""), "wr0ng")
        peer = self.assert_refused(options, "check user 'someone'")
        self.assertNotIn("wr0ng", peer.opened["error"] + peer.log)

    def test_of_a_vhost_that_is_not_its_own_is_refused_inside_tls(self):
        for vhost, user in (("nowhere", USER), (rabbitmq.VHOSTS[0], "nobody")):
            with self.subTest(vhost=vhost, user=user):
                url = WORLD.open.tls_url(user=user, vhost=vhost, host="localhost")
                options = {"host": url, "tls_ca_file": WORLD.authority.file}
                self.assert_refused(options, f"vhost '{vhost}'", f"user '{user}'", user=user)


class ThePort(Case):
    """What is at the other end at all."""

    def test_for_plain_amqp_is_told_to_who_speaks_tls(self):
        url = WORLD.open.url(user=USER).replace("amqp:", "amqps:")
        self.assert_refused({"host": url, "tls_ca_file": WORLD.authority.file},
                            "does not speak TLS", str(WORLD.open.port), "5671")

    def test_for_tls_is_told_to_who_speaks_plain_amqp(self):
        for node in (WORLD.open, WORLD.old):
            url = node.tls_url(user=USER).replace("amqps:", "amqp:")
            self.assert_refused({"host": url}, str(node.tls_port), "amqps://")

    def listen(self):
        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)
        url = f"amqps://{USER}:{quote(PASSWORD, safe='')}@127.0.0.1:{listener.getsockname()[1]}/v"
        return listener, {"host": url, "tls_ca_file": WORLD.authority.file}

    def test_that_is_silent_is_given_up_in_time(self):
        _, options = self.listen()
        self.assert_given_up(options | {"connect_timeout": "0.5"}, "connect_timeout",
                             ready_ms=1500)

    def test_that_trickles_is_given_up_in_time(self):
        listener, options = self.listen()
        stop = threading.Event()

        def trickle():
            connection, _ = listener.accept()
            with connection:
                record = b"\x16\x03\x03\x40\x00" + b"\x02" + bytes(1000)
                for byte in record:
                    if stop.wait(0.05):
                        return
                    try:
                        connection.sendall(bytes([byte]))
                    except OSError:
                        return

        thread = threading.Thread(target=trickle)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(stop.set)
        self.assert_given_up(options | {"connect_timeout": "0.5"}, "connect_timeout",
                             ready_ms=1500)

    def test_that_hangs_up_without_a_word_may_be_better_later(self):
        listener, options = self.listen()
        stop = threading.Event()
        attempts = []

        def hang_up():
            while True:
                connection, _ = listener.accept()
                connection.close()
                if stop.is_set():
                    return
                attempts.append(1)

        thread = threading.Thread(target=hang_up)
        thread.start()

        def end():
            stop.set()
            socket.create_connection(listener.getsockname()).close()
            thread.join()

        self.addCleanup(end)
        # As behind a load balancer without brokers: so not refused, and sends go on waiting.
        self.assert_given_up(options, ready_ms=2500)
        self.assertGreaterEqual(len(attempts), 3)


class TheFiles(Case):
    """What layer_new says of files that cannot be used, whatever the broker."""

    def file(self, content):
        handle, name = tempfile.mkstemp(suffix=".pem")
        os.write(handle, content.encode())
        os.close(handle)
        self.addCleanup(os.unlink, name)
        return name

    def test_that_cannot_be_read_are_named(self):
        client = WORLD.client
        self.assert_no_layer({"tls_ca_file": "/no/such/file"}, "tls_ca_file", "/no/such/file",
                             os.strerror(errno.ENOENT))
        with tempfile.TemporaryDirectory() as folder:
            pipe, large = Path(folder, "pipe"), Path(folder, "large")
            os.mkfifo(pipe)
            with open(large, "wb") as file:
                file.truncate(1 << 40)
            self.assert_no_layer({"tls_ca_file": large}, "tls_ca_file", str(large))
            for other in (folder, pipe, "/dev/zero"):
                self.assert_no_layer({"tls_ca_file": other}, "tls_ca_file", str(other))
        self.assert_no_layer({"tls_cert_file": "/no/cert", "tls_key_file": client.key},
                             "tls_cert_file", "/no/cert")
        self.assert_no_layer({"tls_cert_file": client.file, "tls_key_file": "/no/key"},
                             "tls_key_file", "/no/key")

    def test_without_what_they_are_for_are_named(self):
        client = WORLD.client
        empty = self.file("")
        for content in (empty, client.key):
            self.assert_no_layer({"tls_ca_file": content}, "tls_ca_file", str(content))
        self.assert_no_layer({"tls_cert_file": client.key, "tls_key_file": client.key},
                             "tls_cert_file", str(client.key))
        self.assert_no_layer({"tls_cert_file": client.file, "tls_key_file": client.file},
                             "tls_key_file", str(client.file))
        self.assert_no_layer({"tls_cert_file": client.file}, "tls_cert_file", "tls_key_file")

    def test_that_are_damaged_are_named(self):
        client = WORLD.client
        key = client.key.read_text(encoding="ascii")
        cut = self.file(key[:len(key) // 2])
        self.assert_no_layer({"tls_cert_file": client.file, "tls_key_file": cut},
                             "tls_key_file", cut)
        spoilt = self.file(key[:50] + "!" + key[51:])
        self.assert_no_layer({"tls_cert_file": client.file, "tls_key_file": spoilt},
                             "tls_key_file", spoilt)
        nonsense = "-----BEGIN CERTIFICATE-----\nbm9uc2Vuc2U=\n-----END CERTIFICATE-----\n"
        nonsense = self.file(nonsense)
        self.assert_no_layer({"tls_ca_file": nonsense}, "tls_ca_file", nonsense)
        self.assert_no_layer({"tls_cert_file": nonsense, "tls_key_file": client.key},
                             "tls_cert_file", nonsense)

    def test_with_an_encrypted_key_are_told_how_to_decrypt_it(self):
        for form in ("encrypted", "traditional-encrypted"):
            encrypted = WORLD.authority.rewritten(WORLD.client, form)
            self.assert_no_layer({"tls_cert_file": encrypted.file, "tls_key_file": encrypted.key},
                                 "tls_key_file", str(encrypted.key), "openssl pkey")

    def test_that_do_not_belong_together_are_named(self):
        other = WORLD.authority.client()
        self.assert_no_layer({"tls_cert_file": WORLD.client.file, "tls_key_file": other.key},
                             "tls_key_file", str(other.key), str(WORLD.client.file))

    def test_with_a_key_that_cannot_be_used_are_told_its_kind_and_which_can(self):
        for kind, name in (("P-521", "ECDSA on P-521"), ("RSA-1024", "RSA of 1024 bits")):
            client = WORLD.authority.client(key=kind)
            for each in (client, WORLD.authority.rewritten(client, "traditional")):
                with self.subTest(kind=kind, key=each.key):
                    self.assert_no_layer({"tls_cert_file": each.file, "tls_key_file": each.key},
                                         "tls_key_file", str(each.key), name, "P-384",
                                         "4096 bits", "Ed25519")

    def test_that_no_host_is_for_are_refused(self):
        options = {"host": WORLD.open.url(user=USER), "tls_ca_file": WORLD.authority.file}
        self.assert_no_layer(options, "tls_ca_file", "amqps://")

    def test_are_not_there_on_a_system_without_authorities(self):
        with tempfile.TemporaryDirectory() as folder:
            environment = {"SSL_CERT_FILE": self.file(""), "SSL_CERT_DIR": folder}
            self.assert_no_layer({}, "ca-certificates", "tls_ca_file", environment=environment)
            # It needs none where one is named.
            self.assert_works(WORLD.trusting(WORLD.open), environment=environment)

    def test_are_for_a_host_that_can_stand_in_a_certificate(self):
        self.assert_no_layer({"host": "amqps://1.2.3.4.5"}, "1.2.3.4.5")


class ALayer(Case):
    """What becomes of a layer over time."""

    def test_comes_back_when_the_broker_restarts_with_all_certificates_renewed(self):
        with ExitStack() as stack, tempfile.TemporaryDirectory() as folder:
            renewed = stack.enter_context(certificates.Authority())
            paths = [Path(folder, name) for name in ("ca.pem", "client.pem", "client.key")]

            def install(authority, client):
                for path, source in zip(paths, (authority.file, *client)):
                    path.write_bytes(source.read_bytes())

            node = rabbitmq.Node(users=USERS, tls=rabbitmq.Tls(
                WORLD.server, clients_from=paths[0], required=True))
            stack.callback(node.close)
            install(WORLD.authority, WORLD.client)
            node.start()
            peer = self.assert_works({
                "host": node.tls_url(user=USER, host="localhost"), "tls_ca_file": paths[0],
                "tls_cert_file": paths[1], "tls_key_file": paths[2]})
            self.assert_logs(peer, "connected")
            node.stop()
            install(renewed, renewed.client())
            node.change_certificate(renewed.server())
            node.start()
            self.assert_connects_again(peer)
            self.assertEqual(peer.records("refused"), [])
            self.assert_sends(peer)

    def test_comes_back_when_the_broker_is_killed(self):
        peer = self.assert_works(WORLD.showing(WORLD.client))
        WORLD.strict.kill9()
        WORLD.strict.start()
        self.assert_connects_again(peer)
        self.assertEqual(peer.records("refused"), [])
        self.assert_sends(peer)

    def test_whose_files_go_bad_says_so_and_comes_back_once_they_are_good(self):
        with tempfile.TemporaryDirectory() as folder:
            key = Path(folder, "client.key")
            key.write_bytes(WORLD.client.key.read_bytes())
            peer = self.assert_works(
                WORLD.showing(certificates.Certificate(WORLD.client.file, key)))
            key.write_bytes(WORLD.stranger.client().key.read_bytes())
            WORLD.strict.kill9()
            WORLD.strict.start()

            self.assert_logs(peer, "refused", str(key))
            answer = peer.ask("send-json", "nobody!here", "{}")
            self.assertEqual(answer["status"], "LAYER_REFUSED", answer)
            self.assertIn(str(key), answer["error"])
            key.write_bytes(WORLD.client.key.read_bytes())
            self.assert_connects_again(peer)
            self.assert_sends(peer)


class TheTests(unittest.TestCase):
    def test_would_find_a_debug_print(self):
        for text in ("not good: Other(OtherError(CaUsedAsEndEntity))", "id: [6, 8, 42]",
                     "Context { id"):
            self.assertNotEqual(debug_prints_in(text), [], text)
        self.assertEqual(debug_prints_in("RabbitMQ, OpenSSL, ECDSA on brainpoolP256r1"), [])

    def test_would_find_a_secret(self):
        key = WORLD.client.key
        line = key.read_text(encoding="ascii").splitlines()[1]
        for text in (f"amqps://{USER}:{PASSWORD}@h", f"amqps://{USER}:s3cr3t%2Fw%3Ard@h"):
            self.assertEqual(len(secrets_in(text, [key])), 1)
        self.assertEqual(secrets_in(f"bad line {line}", [key]), [line])
        self.assertEqual(secrets_in("amqps://someone:***@h", [key]), [])


if __name__ == "__main__":
    unittest.main()
