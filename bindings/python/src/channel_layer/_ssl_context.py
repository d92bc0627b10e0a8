"""What of an `ssl.SSLContext` the library can do as well, for users who have one.

The library has TLS of its own. What of a context it cannot do alike is refused, lest a connection
be less safe than it was meant to be.
"""

from __future__ import annotations

import os
import ssl
import weakref


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


def authorities_of(context: ssl.SSLContext):
    """The authorities that a context trusts, as PEM text; None for the system's."""
    if not isinstance(context, ssl.SSLContext):
        raise TypeError(f"ssl_context is an ssl.SSLContext, not {type(context).__name__}")
    problem = _problem_of(context)
    if problem is not None:
        raise ValueError(f"ssl_context asks for what cannot be had: {problem}")
    authorities = context.get_ca_certs(binary_form=True)
    if authorities:
        return "".join(map(ssl.DER_cert_to_PEM_cert, authorities))
    if context.cert_store_stats()["x509"]:
        raise ValueError(
            "ssl_context trusts certificates that are no authorities, which cannot be read out of "
            "it: name their file in option tls_ca_file instead"
        )
    # A context tells nothing of authorities that it finds in a folder. Where the system's are found
    # so, this context is taken for one of those; else it is of somebody's own making.
    if ssl.create_default_context().get_ca_certs(binary_form=True):
        raise ValueError(
            "ssl_context trusts no authority, or those in a folder (capath), which cannot be read "
            "out of it: name their file in option tls_ca_file instead"
        )
    return None


class TextFile:
    """A text as a file without a name, which lives as long as its owner does.

    The library reads its files again for each connection. One in a folder for temporary files would
    be gone by then where the system clears such folders, or where a parent process has ended.
    """

    def __init__(self, text: str) -> None:
        self._descriptor = descriptor = os.memfd_create("channel-layer-authorities")
        process = os.getpid()

        def close():
            if os.getpid() == process:  # a forked child may have another file under this number
                os.close(descriptor)

        weakref.finalize(self, close)
        with open(descriptor, "w", encoding="ascii", closefd=False) as file:
            file.write(text)

    @property
    def path(self) -> str:
        return f"/proc/self/fd/{self._descriptor}"
