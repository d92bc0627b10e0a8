"""Which authorities a context has, where the system's are in a file and where in a folder alone."""

import multiprocessing
import os
import shutil
import ssl
import subprocess
from contextlib import ExitStack

import pytest

import certificates
from channel_layer import _ssl_context
from channel_layer._ssl_context import TextFile, authorities_of
from conftest import WAIT

NAMES = ("one of the system", "another of the system", "company")


class Authorities:
    """Two of the system, and a company's."""

    def __init__(self, stack):
        self.files = {
            name: stack.enter_context(certificates.Authority(name)).file for name in NAMES
        }

    def folder(self, path, *names):
        """Puts authorities into a folder, as OpenSSL looks for them."""
        path.mkdir()
        for number, name in enumerate(names):
            shutil.copy(self.files[name], path / f"{number}.pem")
        subprocess.run(["openssl", "rehash", path], timeout=WAIT, check=True)
        return str(path)


@pytest.fixture(scope="module")
def authorities():
    with ExitStack() as stack:
        yield Authorities(stack)


@pytest.fixture
def folder(authorities, tmp_path, monkeypatch):
    """A system whose authorities are in a folder alone, as Debian's are to OpenSSL."""
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    folder = authorities.folder(tmp_path / "system", *NAMES[:2])
    monkeypatch.setenv("SSL_CERT_DIR", folder)
    assert not ssl.create_default_context().get_ca_certs()
    return folder


@pytest.fixture
def file(authorities, tmp_path, monkeypatch):
    """A system whose authorities are in a file alone."""
    path = tmp_path / "all.pem"
    path.write_text("".join(authorities.files[name].read_text("ascii") for name in NAMES[:2]))
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))


@pytest.fixture(params=["file", "folder"])
def system(request):
    request.getfixturevalue(request.param)


def names_in(text):
    """The names of the authorities in a text."""
    store = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    store.load_verify_locations(cadata=text)
    return sorted(
        value
        for each in store.get_ca_certs()
        for ((name, value),) in each["subject"]
        if name == "commonName"
    )


def test_the_systems_are_those_of_a_default_context(system):
    assert names_in(authorities_of(ssl.create_default_context())) == sorted(NAMES[:2])


def test_those_that_a_default_context_was_given_come_beside_the_systems(system, authorities):
    context = ssl.create_default_context()
    context.load_verify_locations(authorities.files["company"])
    assert names_in(authorities_of(context)) == sorted(NAMES)


def test_those_that_a_context_was_given_alone_come_alone(system, authorities):
    context = ssl.create_default_context(cafile=authorities.files["company"])
    assert names_in(authorities_of(context)) == ["company"]


def test_a_default_context_that_was_used_has_all_the_systems(folder, authorities):
    context = ssl.create_default_context()
    store = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    store.load_verify_locations(authorities.files[NAMES[0]])
    (one,) = store.get_ca_certs(binary_form=True)
    _ssl_context._look_up(context, one)  # as a server's certificate makes it do
    assert context.get_ca_certs(binary_form=True) == [one]
    assert names_in(authorities_of(context)) == sorted(NAMES[:2])


def test_a_private_folder_is_refused_and_never_the_systems_instead(system, authorities, tmp_path):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(capath=authorities.folder(tmp_path / "private", "company"))
    with pytest.raises(ValueError, match="capath") as caught:
        authorities_of(context)
    assert "tls_ca_file" in str(caught.value) and "leave ssl_context out" in str(caught.value)


def test_of_a_private_folder_with_some_of_the_systems_no_others_are_taken(
    folder, authorities, tmp_path
):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(capath=authorities.folder(tmp_path / "private", NAMES[1]))
    assert names_in(authorities_of(context)) == [NAMES[1]]


def test_a_context_that_trusts_nobody_is_refused(system):
    with pytest.raises(ValueError, match="trusts no authority"):
        authorities_of(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))


def test_a_context_that_cannot_be_made_to_tell_is_refused(folder, monkeypatch):
    # A server's hello that no client understands.
    monkeypatch.setattr(_ssl_context, "_sized", lambda width, content: bytes(width) + content)
    with pytest.raises(ValueError, match="does not tell") as caught:
        authorities_of(ssl.create_default_context())
    assert "tls_ca_file" in str(caught.value)


def test_what_is_no_certificate_in_the_systems_folder_is_passed_over(folder):
    for name in ("00000000.0", "11111111.0"):
        with open(os.path.join(folder, name), "w", encoding="ascii") as file:
            file.write("nothing\n")
    os.symlink("nowhere", os.path.join(folder, "22222222.0"))
    assert names_in(authorities_of(ssl.create_default_context())) == sorted(NAMES[:2])


# --- the file that the library reads them from ----------------------------------------------


def _texts_that_are_open():
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:  # what the folder was read by
            continue
        if "channel-layer-authorities" in target:
            found.append(name)
    return found


def test_a_text_is_a_file_until_its_owner_is_gone():
    file = TextFile("some text")
    path = file.path
    with open(path, encoding="ascii") as opened:
        assert opened.read() == "some text"
    assert os.path.basename(path) in _texts_that_are_open()
    del file
    assert os.path.basename(path) not in _texts_that_are_open()


def test_a_child_has_no_text_of_its_parents_and_the_parent_keeps_it():
    file = TextFile("some text")
    fork = multiprocessing.get_context("fork")
    receiving, sending = fork.Pipe(duplex=False)

    def run():
        texts = _texts_that_are_open()
        # What has the number now is not closed with the parent's object.
        number, other = int(os.path.basename(file.path)), os.open(os.devnull, os.O_RDONLY)
        os.dup2(other, number)
        file.__dict__.pop("_close")()
        os.fstat(number)
        sending.send(texts)

    child = fork.Process(target=run)
    child.start()
    try:
        assert receiving.poll(WAIT)
        assert receiving.recv() == []
        child.join(WAIT)
        assert child.exitcode == 0
    finally:
        child.kill()
        child.join()
    with open(file.path, encoding="ascii") as opened:
        assert opened.read() == "some text"
