"""What of an `ssl.SSLContext` the library can do as well, for users who have one.

The library has TLS of its own. What of a context it cannot do alike is refused, lest a connection
be less safe than it was meant to be.
"""

from __future__ import annotations

import os
import re
import ssl
import weakref

from ._process import identity, in_forked_child
from ._unique import Unique

HASHED_NAME = re.compile(r"[0-9a-f]{8}\.[0-9]+")  # of a certificate in a folder for OpenSSL
LONGEST_RECORD = 16384  # bytes of a TLS record
NOBODY = "nobody.invalid"


def _problem_of(context: ssl.SSLContext):
    """What a context asks for and cannot have, or None."""
    oldest, newest = context.minimum_version, context.maximum_version
    version = ssl.TLSVersion
    if context.verify_mode != ssl.CERT_REQUIRED or not context.check_hostname:
        return "the broker's certificate and host name are always verified"
    if (
        oldest in (version.TLSv1_3, version.MAXIMUM_SUPPORTED)
        or context.options & ssl.OP_NO_TLSv1_2
    ):
        return "TLS 1.2 cannot be excluded"
    if (
        newest not in (version.MAXIMUM_SUPPORTED, version.TLSv1_3)
        or context.options & ssl.OP_NO_TLSv1_3
    ):
        return "TLS 1.3 cannot be excluded"
    if context.verify_flags & (ssl.VERIFY_CRL_CHECK_LEAF | ssl.VERIFY_CRL_CHECK_CHAIN):
        return "revocation lists are not read"
    return None


def _system_folder_authorities():
    """The authorities, as DER, that OpenSSL looks for by name in the system's folders."""
    paths = ssl.get_default_verify_paths()
    folders = os.environ.get(paths.openssl_capath_env, paths.openssl_capath).split(os.pathsep)
    store = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for folder in filter(os.path.isdir, folders):
        try:
            names = os.listdir(folder)
        except OSError as error:
            raise ValueError(
                "ssl_context may trust the system's authorities, and their folder cannot be listed "
                f"({error}): name the file of those that it is to trust in option tls_ca_file "
                "instead"
            ) from error
        for name in filter(HASHED_NAME.fullmatch, names):
            try:
                store.load_verify_locations(os.path.join(folder, name))
            except OSError:  # of which ssl.SSLError is one: OpenSSL cannot read that file either
                continue
    return store.get_ca_certs(binary_form=True)


def _sized(width: int, content: bytes) -> bytes:
    return len(content).to_bytes(width, "big") + content


def _look_up(context: ssl.SSLContext, authority: bytes) -> None:
    """Has a context look for an authority wherever it looks for any.

    A context finds those in a folder only when a certificate comes that they are to have signed,
    and shows them from then on. Here the authority's own comes, in the plain text of TLS 1.2, from
    a server that is not there. The handshake ends with that, since no authority is named NOBODY.
    """
    suites = [each for each in context.get_ciphers() if each["protocol"] != "TLSv1.3"]
    if not suites:
        raise ValueError("ssl_context asks for what cannot be had: TLS 1.2 cannot be excluded")
    hello = (
        b"\3\3"
        + bytes(32)  # instead of random bytes
        + _sized(1, b"")  # no session
        + (suites[0]["id"] & 0xFFFF).to_bytes(2, "big")
        + b"\0"  # no compression
        + _sized(2, b"\xff\1" + _sized(2, b"\0"))  # renegotiation is secure
    )
    certificates = _sized(3, _sized(3, authority))
    messages = b"\2" + _sized(3, hello) + b"\x0b" + _sized(3, certificates)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    connection = context.wrap_bio(incoming, outgoing, server_hostname=NOBODY)
    try:
        connection.do_handshake()
    except ssl.SSLWantReadError:
        pass  # it has sent its own hello
    for start in range(0, len(messages), LONGEST_RECORD):
        incoming.write(b"\x16\3\3" + _sized(2, messages[start : start + LONGEST_RECORD]))
    try:
        connection.do_handshake()
    except ssl.SSLCertVerificationError:
        pass
    except ssl.SSLError as error:
        raise ValueError(
            "ssl_context does not tell which authorities it finds in the system's folder "
            f"({error}): name the file of those that it is to trust in option tls_ca_file instead"
        ) from error


def authorities_of(context: ssl.SSLContext) -> str:
    """The authorities that a context trusts, as PEM text.

    Those that it finds in a folder it tells only of once it has found them. For the system's folder
    it is made to. Of another nothing is known, not even that it is one of the context's: a context
    that trusts those alone is refused, and of one that trusts others too only these are taken, so
    that never more is trusted than by the context.
    """
    if not isinstance(context, ssl.SSLContext):
        raise TypeError(f"ssl_context is an ssl.SSLContext, not {type(context).__name__}")
    problem = _problem_of(context)
    if problem is not None:
        raise ValueError(f"ssl_context asks for what cannot be had: {problem}")
    shown = set(context.get_ca_certs(binary_form=True))
    for each in _system_folder_authorities():
        if each not in shown:
            _look_up(context, each)
    authorities = context.get_ca_certs(binary_form=True)
    if authorities:
        return "".join(map(ssl.DER_cert_to_PEM_cert, authorities))
    if context.cert_store_stats()["x509"]:
        raise ValueError(
            "ssl_context trusts certificates that are no authorities, which cannot be read out of "
            "it: name their file in option tls_ca_file instead"
        )
    raise ValueError(
        "ssl_context trusts no authority, or those in a folder (capath), which cannot be read out "
        "of it: name their file in option tls_ca_file instead; for the system's authorities leave "
        "ssl_context out"
    )


class TextFile(Unique):
    """A text as a file without a name, which lives as long as its owner does, in one process.

    The library reads its files again for each connection. One in a folder for temporary files would
    be gone by then where the system clears such folders, or where a parent process has ended.
    """

    def __init__(self, text: str) -> None:
        self._descriptor = os.memfd_create("channel-layer-authorities")
        self._close = weakref.finalize(self, _close_in, identity(), self._descriptor)
        in_forked_child(self)
        with open(self._descriptor, "w", encoding="ascii", closefd=False) as file:
            file.write(text)

    @property
    def path(self) -> str:
        return f"/proc/self/fd/{self._descriptor}"

    def after_fork(self) -> None:
        # Nothing in the child has had the time to put another file under this number.
        if self._close.detach() is not None:
            os.close(self._descriptor)


def _close_in(process, descriptor: int) -> None:
    # A child that was not told of its fork may have another file under this number.
    if identity() == process:
        os.close(descriptor)
