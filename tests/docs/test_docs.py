"""What the pages of docs/ say is what happens; run.sh starts it.

The pages are built, each code block is run or is a part of a program that is, each link leads
somewhere, and each name of the header has its entry. For each of these a defect is planted once, to
see that it is seen.
"""

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import unittest
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
for folder in ("tests/fixture", "tests/bindings", "docs/site"):
    sys.path.insert(0, str(ROOT / folder))
import api  # noqa: E402  (found by the lines above, as the next ones)
import certificates  # noqa: E402
import links  # noqa: E402
import quotes  # noqa: E402
import rabbitmq  # noqa: E402

URL = os.environ["CHANNEL_LAYER_TEST_AMQP"]
PYTHON_OF_THE_SITE = os.environ["CHANNEL_LAYER_TEST_INTEROP"]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", "target")).resolve()
LIBRARY = TARGET / "debug"
OUTPUT = Path(os.environ.get("CHANNEL_LAYER_TEST_OUTPUT", TARGET)).resolve()
PAGES = OUTPUT / "docs"
PROGRAMS = OUTPUT / "docs-examples"
EXAMPLES = ROOT / "docs" / "examples"
WAIT = 60  # seconds for what is sure to come
STATE_READY = api.read()["enums"]["layer_state_t"]["values"]["LAYER_STATE_READY"]
# The examples that need no more than a broker, which may be the one within.
ON_BOTH_BROKERS = ("asio", "async", "epoll", "errors", "glib", "libuv", "lifecycle", "observe",
                   "qt")
# What an example needs beside the library, by what it includes: packages of pkg-config, of which
# one will do. Boost.Asio is headers alone.
NEEDED = {"<uv.h>": ("libuv",), "<glib-unix.h>": ("glib-2.0",),
          "<QCoreApplication>": ("Qt6Core", "Qt5Core")}
# Too large for the tests to install: the example is left out where it is missing.
OPTIONAL = ("qt",)

# A header, and what is made of each of its functions.
COMMENTED = r"""/* Conventions. */
// Does one thing. Then another, \n and a@b and `\n`.
//
// `layer`: not NULL. `error`: see the conventions. Never blocks; any thread. Returns
// `LAYER_OK`, for NULL too; `LAYER_FULL` (too much; or (worse)).
layer_status_t layer_one(layer_t *layer, layer_error_t **error);

// `layer_one` without waiting; all else as `layer_one`.
layer_status_t layer_two(layer_t *layer, layer_error_t **error);
"""
TERMS = (r"\param layer Not NULL. \param error Receives why the call failed, to be freed by "
         r"`layer_error_free`; may be NULL. \par Blocking, threads, callbacks Never blocks; any "
         r"thread. \retval LAYER_OK For NULL too \retval LAYER_FULL Too much; or (worse)")


def run(*command, **more):
    """How a program ended, with all that it printed as one text."""
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True,
                          timeout=WAIT, check=False, **more)
    return done.returncode, done.stdout


def compiled(source):
    """Compiles an example as a reader would, but with all warnings on."""
    program = PROGRAMS / source.stem
    program.unlink(missing_ok=True)  # of an earlier run
    more = []
    for header, packages in NEEDED.items():
        if header in source.read_text(encoding="utf-8"):
            found = [flags for flags in map(flags_of, packages) if flags is not None]
            if not found and source.stem in OPTIONAL:
                return ""
            more += found[0] if found else []
    compiler = [*os.environ.get("CC", "cc").split(), "-std=c11"]
    if source.suffix == ".cpp":
        compiler = [*os.environ.get("CXX", "c++").split(), "-std=c++20", "-fPIC",
                    f"-I{ROOT / 'bindings/cpp/include'}"]
    status, text = run(*compiler, "-Wall", "-Wextra", "-Werror", "-g", "-pthread",
                       f"-I{ROOT / 'include'}", f"-I{EXAMPLES}", source, "-o", program,
                       f"-L{LIBRARY}", "-lchannel_layer", f"-Wl,-rpath,{LIBRARY}", *more)
    return f"{source.name}: {text}" if status else ""


def flags_of(package):
    """What a compiler needs for a package; None where it is not installed."""
    status, text = run("pkg-config", "--cflags", "--libs", package)
    return text.split() if status == 0 else None


def with_host(url, host):
    """A URL with another host and port."""
    return re.sub(r"@[^/]+", f"@{host}", url)


class World:
    """What is made once: the pages, the programs, a broker with TLS."""

    def __init__(self, stack):
        PROGRAMS.mkdir(parents=True, exist_ok=True)
        self.authority = stack.enter_context(certificates.Authority())
        self.stranger = stack.enter_context(certificates.Authority("another authority"))
        self.client = self.authority.client()
        self.tls = rabbitmq.Node(tls=rabbitmq.Tls(self.authority.server(addresses=()),
                                                  clients_from=self.authority.file, required=True))
        stack.callback(self.tls.close)
        with ThreadPoolExecutor() as pool:
            node = pool.submit(self.tls.start)
            build = pool.submit(run, ROOT / "docs/site/build.sh", PAGES, cwd=ROOT)
            complaints = list(pool.map(compiled, [ROOT / "tests/docs/not_ready.c",
                                                  *sorted(EXAMPLES.glob("*.c")),
                                                  *sorted(EXAMPLES.glob("*.cpp"))]))
            self.complaints = "".join(complaints)
            self.build = build.result()
            node.result()


def setUpModule():
    global WORLD
    stack = ExitStack()
    unittest.addModuleCleanup(stack.close)
    WORLD = World(stack)


class Case(unittest.TestCase):
    maxDiff = None

    def folder(self):
        """A folder that goes with the test."""
        made = tempfile.TemporaryDirectory()
        self.addCleanup(made.cleanup)
        return Path(made.name).resolve()

    def output_of(self, *command, status=0, **more):
        """What a program prints that ends with this status."""
        ended, text = run(*command, **more)
        self.assertEqual(ended, status, text)
        return text


class Tree:
    """A copy of what the pages are made of, to plant defects in."""

    def __init__(self, folder):
        self.root = folder / "tree"
        self.target = folder / "target"
        for name in ("docs", "include", "tests/interop"):
            shutil.copytree(ROOT / name, self.root / name,
                            ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "Cargo.toml", self.root)
        self.target.mkdir()
        (self.target / "docs-venv").symlink_to(TARGET / "docs-venv")

    def plant(self, name, old, new):
        """Changes the first `old` in a file; an empty one is the end of the file."""
        path = self.root / name
        text = path.read_text(encoding="utf-8")
        if old not in text:
            raise AssertionError(f"there is no {old!r} in {name}")
        path.write_text(text.replace(old, new, 1) if old else text + new, encoding="utf-8")

    def build(self):
        return run(self.root / "docs/site/build.sh", self.target / "docs", cwd=self.root,
                   env={**os.environ, "CARGO_TARGET_DIR": str(self.target),
                        "CHANNEL_LAYER_TEST_OUTPUT": str(self.target)})


class Pages(Case):
    def test_are_built_without_a_warning(self):
        status, text = WORLD.build
        self.assertEqual(status, 0, text)

    def test_with_defects_are_not_built(self):
        tree = Tree(self.folder())
        tree.plant("docs/concepts.md", "", "\nSee [nothing](nothing.md).\n")
        tree.plant("docs/errors.md", "", "\nSee [no such part](threads.md#no-such-part).\n")
        tree.plant("docs/tuning.md", "", "\nCall `layer_send_twice`, or `LAYER_TWICE`.\n")
        tree.plant("docs/reference/closing.md", "layer_free\n", "layer_freed\n")
        status, text = tree.build()
        self.assertNotEqual(status, 0)
        for complaint in ("nothing.md", "no-such-part", "declares no 'layer_send_twice'",
                          "declares no 'LAYER_TWICE'", "declares no 'layer_freed'"):
            self.assertIn(complaint, text)

    def test_of_a_header_that_leaves_something_undescribed_are_not_built(self):
        for old, new, complaint in (
                ("// The ABI of the library",
                 "int layer_mystery(void);\n\n// The ABI of the library", "layer_mystery"),
                ("    // The layer is closed.\n", "", "LAYER_CLOSED"),
                ("// The second number of `LAYER_VERSION`.\n", "", "LAYER_VERSION_MINOR"),
                ("`which`: a `layer_stat_t`.", "A word.", "which"),
                ("`which`: a `layer_stat_t`.", "`witch`: a word.", "witch")):
            with self.subTest(complaint):
                tree = Tree(self.folder())
                tree.plant("include/channel_layer.h", old, new)
                status, text = tree.build()
                self.assertNotEqual(status, 0, text)
                self.assertIn(complaint, text)

    def test_show_what_a_comment_of_the_header_and_that_of_its_twin_say(self):
        source = self.folder() / "some.h"
        source.write_text(COMMENTED, encoding="utf-8")
        text = self.output_of(sys.executable, ROOT / "docs/site/header_filter.py", source)
        one, two = (" ".join(part.split()) for part in text.split(r"/** \brief ")[-2:])
        self.assertIn(r"Does one thing. Then another, \\n and a\@b and `\n`. " + TERMS, one)
        self.assertIn(TERMS, two)

    def test_have_one_entry_for_each_name_of_the_header(self):
        header = api.read()
        names = [*header["functions"], *header["callbacks"], *header["handles"],
                 *header["constants"], *header["enums"], "LAYER_MUST_USE"]
        for enum in header["enums"].values():
            names += enum["values"]
        entries = Counter()
        for page in (PAGES / "reference").glob("*.html"):
            # That of an enum's value has two names, with and without that of the enum.
            entries.update(name.rpartition(".")[2] for name in re.findall(
                r'<dt class="sig [^>]*id="c\.([\w.]+)"', page.read_text(encoding="utf-8")))
        self.assertGreater(len(names), 100)
        self.assertEqual({name: entries[name] for name in names}, dict.fromkeys(names, 1))
        self.assertEqual(set(entries) - set(names), set())

    def test_explain_every_status(self):
        text = (ROOT / "docs/errors.md").read_text(encoding="utf-8")
        for status in api.read()["enums"]["layer_status_t"]["values"]:
            self.assertIn(f"`{status}`", text)

    def test_link_to_nothing_that_is_not_there(self):
        broken, outside = links.check(PAGES)
        self.assertEqual(broken, [])
        (OUTPUT / "docs-links.txt").write_text("\n".join(outside) + "\n", encoding="utf-8")
        print("links to the outside, which are not followed:", *outside, sep="\n    ")
        for link in outside:
            self.assertRegex(link, "^https://")

    def test_are_where_the_readme_says(self):
        text = (ROOT / "README.md").read_text(encoding="utf-8")
        named = re.findall(r"\]\((docs/[^)#]+)", text)
        self.assertGreater(len(named), 10)
        for name in named:
            self.assertTrue((ROOT / name).is_file(), name)

    def test_with_broken_links_are_found(self):
        folder = self.folder()
        (folder / "a.html").write_text(
            '<a href="b.html#here">1</a> <a href="b.html#there">2</a> <a href="c.html">3</a>'
            '<a href="#self">4</a> <a href="https://example.org/">5</a> <img src="d.png">'
            '<a href="../a.html">6</a>', encoding="utf-8")
        (folder / "b.html").write_text('<p id="here">', encoding="utf-8")
        broken, outside = links.check(folder)
        self.assertEqual([link for _, link in broken],
                         ["#self", "../a.html", "b.html#there", "c.html", "d.png"])
        self.assertEqual(outside, ["https://example.org/"])


class Quotes(Case):
    def test_are_what_stands_in_the_examples(self):
        self.output_of(sys.executable, ROOT / "docs/site/quotes.py", "--check")

    def test_are_of_every_example(self):
        quoted = {block.words.split(" [")[0].rpartition("/")[2] for page in quotes.pages()
                  for block in quotes.blocks(page) if block.kind == "quote"}
        self.assertEqual(quoted, {path.name for path in EXAMPLES.iterdir() if path.is_file()})

    def test_that_have_drifted_are_found(self):
        defects = (
            ("docs/examples/epoll.c", "epoll_create1(EPOLL_CLOEXEC)", "epoll_create1(0)",
             "docs/recipes/epoll.md"),
            ("docs/recipes/epoll.md", "<!-- quote: examples/epoll.c [loop] -->\n", "",
             "no comment says"),
            ("docs/examples/epoll.c", "/* [loop] */", "", "0 regions [loop]"),
            ("docs/recipes/epoll.md", "examples/epoll.c [loop]", "examples/gone.c [loop]",
             "gone.c"),
        )
        for name, old, new, complaint in defects:
            with self.subTest(complaint):
                tree = Tree(self.folder())
                tree.plant(name, old, new)
                self.assertIn(complaint, self.output_of(
                    sys.executable, tree.root / "docs/site/quotes.py", "--check", status=1))


class Examples(Case):
    def test_compile_without_a_warning(self):
        self.assertEqual(WORLD.complaints, "")

    def test_are_all_run(self):
        ours = set(ON_BOTH_BROKERS) | {"prefork", "tls", "cluster", "game"}
        self.assertEqual(ours, {path.stem for path in EXAMPLES.glob("*.c*")})

    def test_prefork(self):
        text = self.output_of(PROGRAMS / "prefork", URL)
        self.assertEqual(len(re.findall(r"^worker \d+ received a job$", text, re.MULTILINE)), 3)

    def test_tls(self):
        text = self.output_of(PROGRAMS / "tls", WORLD.tls.tls_url(host="localhost"),
                              WORLD.authority.file, WORLD.client.file, WORLD.client.key)
        self.assertEqual(text, "received a secret\n")

    def test_tls_with_another_authority(self):
        text = self.output_of(PROGRAMS / "tls", WORLD.tls.tls_url(host="localhost"),
                              WORLD.stranger.file, WORLD.client.file, WORLD.client.key, status=3)
        (block,) = outputs_of("tls.c")
        self.assertIn(block.text.strip(), text)

    def test_cluster_of_which_the_first_host_is_dead(self):
        dead = rabbitmq.Port()
        self.addCleanup(dead.release)
        hosts = f"{with_host(URL, f'127.0.0.1:{dead.number}')},{URL}"
        text = self.output_of(PROGRAMS / "cluster", hosts)
        self.assertIn(f"state {STATE_READY}, generation 1\n", text)

    def test_game_and_a_django_site_share_a_group(self):
        site = subprocess.Popen([PYTHON_OF_THE_SITE, EXAMPLES / "site.py", URL], text=True,
                                stdout=subprocess.PIPE)
        self.addCleanup(site.stdout.close)
        self.addCleanup(site.wait)
        self.addCleanup(site.kill)
        self.assertEqual(site.stdout.readline(), "ready\n")
        text = self.output_of(PROGRAMS / "game", URL)
        self.assertEqual(site.wait(WAIT), 0)
        (block,) = outputs_of("game.c")
        self.assertEqual(nameless(text), nameless(block.text))

    def test_errors_print_what_the_page_shows(self):
        (block,) = outputs_of("errors.c")
        self.assertIn(block.text, self.output_of(PROGRAMS / "errors"))


def add_runs_on_both_brokers():
    for name in ON_BOTH_BROKERS:
        for broker, arguments in (("memory", []), ("rabbitmq", [URL])):
            def test(self, name=name, arguments=arguments):
                if name in OPTIONAL and not (PROGRAMS / name).exists():
                    self.skipTest("what it needs is not installed")
                self.output_of(PROGRAMS / name, *arguments)
            setattr(Examples, f"test_{name}_on_{broker}", test)


add_runs_on_both_brokers()


def outputs_of(name):
    """The blocks that show what an example prints."""
    return [block for page in quotes.pages() for block in quotes.blocks(page)
            if block.kind == "output" and block.of == name]


def nameless(text):
    """A text with one name for all channels that were made up."""
    return re.sub(r"channels_[A-Za-z]{12}![A-Za-z]{12}", "CHANNEL", text)


class Blocks(Case):
    """What a reader types, typed."""

    def installed(self):
        """A folder with the library as `make install` puts it, and what is needed to use it."""
        prefix = self.folder()
        for name in ("lib", "include"):
            (prefix / name).mkdir()
        shutil.copy(LIBRARY / "libchannel_layer.so", prefix / "lib/libchannel_layer.so.0")
        (prefix / "lib/libchannel_layer.so").symlink_to("libchannel_layer.so.0")
        shutil.copy(ROOT / "include/channel_layer.h", prefix / "include")
        pc = (ROOT / "packaging/channel_layer.pc.in").read_text(encoding="utf-8")
        for name, value in (("PREFIX", prefix), ("LIBDIR", prefix / "lib"), ("VERSION", "0"),
                            ("INCLUDEDIR", prefix / "include"), ("STATIC_LIBS", "")):
            pc = pc.replace(f"@{name}@", str(value))
        (prefix / "channel_layer.pc").write_text(pc, encoding="utf-8")
        return {**os.environ, "PKG_CONFIG_PATH": str(prefix),
                "LD_LIBRARY_PATH": str(prefix / "lib")}

    def test_that_are_commands_work_and_print_what_is_shown(self):
        ran = 0
        for page in quotes.pages():
            blocks = quotes.blocks(page)
            for block, after in zip(blocks, [*blocks[1:], None]):
                if block.kind != "run":
                    continue
                folder = self.folder()
                for path in EXAMPLES.glob("*.[ch]"):
                    shutil.copy(path, folder)
                text = self.output_of("sh", "-euc", block.text, cwd=folder, env=self.installed())
                if after and after.kind == "output" and not after.of:
                    self.assertEqual(text, after.text, block.place)
                ran += 1
        self.assertGreater(ran, 0)

    def test_that_are_not_run_say_why(self):
        for page in quotes.pages():
            for block in quotes.blocks(page):
                if block.kind == "shown":
                    self.assertTrue(block.words, block.place)
                    self.assertNotIn(block.language, ("c", "cpp", "python"), block.place)

    def test_that_show_an_output_name_a_program_of_ours(self):
        names = {path.name for path in EXAMPLES.iterdir()}
        for page in quotes.pages():
            for block in quotes.blocks(page):
                if block.kind == "output" and block.of:
                    self.assertIn(block.of, names, block.place)


class Troubleshooting(Case):
    """The texts in the table of what keeps a layer from getting ready."""

    def test_table_has_the_texts_that_users_see(self):
        dead = rabbitmq.Port()
        self.addCleanup(dead.release)
        silent = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(silent.close)
        secure = f"host={WORLD.tls.tls_url(host='localhost')}"
        causes = {
            "nobody listens there": [f"host={with_host(URL, f'127.0.0.1:{dead.number}')}"],
            # A label may have 63 bytes: no server of names needs to be asked.
            "is not known": [f"host={with_host(URL, 64 * 'a' + '.invalid')}"],
            "no answer from": [
                f"host={with_host(URL, f'127.0.0.1:{silent.getsockname()[1]}')}",
                "connect_timeout=1"],
            "403 ACCESS_REFUSED": ["host=" + URL.replace(":guest@", ":wrong@")],
            "check that vhost": ["host=" + URL.rpartition("/")[0] + "/no-such-vhost"],
            "does not speak TLS": ["host=" + URL.replace("amqp://", "amqps://")],
            "not signed by a trusted CA": [secure, f"tls_ca_file={WORLD.stranger.file}"],
            "the broker's certificate": [
                f"host={WORLD.tls.tls_url()}", f"tls_ca_file={WORLD.authority.file}"],
            "asks for a client certificate": [secure, f"tls_ca_file={WORLD.authority.file}"],
        }
        page = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")
        table = page.partition("| The text says ")[2].partition("\n\n")[0]
        texts = re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)
        self.assertEqual(texts, list(causes))
        with ThreadPoolExecutor(len(causes)) as pool:
            reasons = list(pool.map(
                lambda cause: self.output_of(PROGRAMS / "not_ready", *cause), causes.values()))
        for text, reason in zip(causes, reasons):
            self.assertIn(text, reason)


class Result(unittest.TextTestResult):
    def passed(self):
        return self.testsRun - len({str(test).partition(" [")[0] for test, _ in
                                    self.failures + self.errors}) - len(self.skipped)


def main():
    runner = unittest.TextTestRunner(verbosity=2, resultclass=Result)
    program = unittest.main(testRunner=runner, exit=False)
    result = program.result
    failed = 0 if result.wasSuccessful() else max(1, result.testsRun - result.passed())
    skipped = f", {len(result.skipped)} skipped" if result.skipped else ""
    print(f"{result.passed()} passed, {failed} failed{skipped}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
