"""Certificates for servers that speak TLS, each of an authority of its own."""

from pathlib import Path

import trustme


def write_certificate(file: Path, identity: str) -> None:
    """Write a key, its certificate for a host name or address, and that of the authority."""
    authority = trustme.CA()
    made = authority.issue_cert(identity)
    chain = [*made.cert_chain_pems, authority.cert_pem]
    file.write_bytes(b"".join(pem.bytes() for pem in (made.private_key_pem, *chain)))
