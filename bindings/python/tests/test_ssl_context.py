"""Which authorities a context has, where the system's are in a file and where in a folder alone."""

import shutil
import ssl
import subprocess
from contextlib import ExitStack

import pytest

import certificates
from channel_layer._ssl_context import authorities_of
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


def test_the_systems_of_a_file_are_those_of_a_default_context(file):
    assert names_in(authorities_of(ssl.create_default_context())) == sorted(NAMES[:2])


def test_those_that_a_default_context_was_given_come_beside_the_systems(file, authorities):
    context = ssl.create_default_context()
    context.load_verify_locations(authorities.files["company"])
    assert names_in(authorities_of(context)) == sorted(NAMES)


def test_those_that_a_context_was_given_alone_come_alone(system, authorities):
    context = ssl.create_default_context(cafile=authorities.files["company"])
    assert names_in(authorities_of(context)) == ["company"]


def test_those_in_the_systems_folder_are_never_taken_unless_the_context_shows_them(
    folder, authorities
):
    context = ssl.create_default_context()
    with pytest.raises(ValueError, match="tls_ca_file") as caught:
        authorities_of(context)
    assert "leave ssl_context out" in str(caught.value)
    context.load_verify_locations(authorities.files["company"])
    assert names_in(authorities_of(context)) == ["company"]


def test_a_private_folder_is_refused_and_never_the_systems_instead(system, authorities, tmp_path):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(capath=authorities.folder(tmp_path / "private", "company"))
    with pytest.raises(ValueError, match="folder") as caught:
        authorities_of(context)
    assert "tls_ca_file" in str(caught.value) and "leave ssl_context out" in str(caught.value)


def test_a_context_that_trusts_nobody_is_refused(system):
    with pytest.raises(ValueError, match="shows no authority"):
        authorities_of(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))


def test_a_context_is_asked_and_no_connection_is_made_of_it(system, authorities):
    class Context(ssl.SSLContext):
        def wrap_bio(self, *_, **__):
            raise AssertionError("a handshake")

        wrap_socket = wrap_bio

    context = Context(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(authorities.files["company"])
    assert names_in(authorities_of(context)) == ["company"]
