"""What of an `ssl.SSLContext` the library can do as well, for users who have one.

The library has TLS of its own. What of a context it cannot do alike is refused, so that no
connection is less safe than it was meant to be.
"""

from __future__ import annotations

import ssl


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


def authorities_of(context: ssl.SSLContext) -> str:
    """The authorities that a context trusts, as PEM text: those that it shows.

    A context finds authorities in a folder (as Debian's are to OpenSSL) only once a certificate
    comes that they are to have signed, and shows them from then on. Nothing is known of the others:
    a context that shows none is refused, and of one that shows some only these are taken, so that
    never more is trusted than by the context.
    """
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
    raise ValueError(
        "ssl_context shows no authority (get_ca_certs() is empty): it trusts none, or those in a "
        "folder, which cannot be read out of it. Name their file in option tls_ca_file instead; "
        "for the system's authorities leave ssl_context out"
    )
