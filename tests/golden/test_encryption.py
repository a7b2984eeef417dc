"""Sealed rows of earlier releases are opened for ever, and as the format says.

``encrypted1.txt`` is never edited, only added to. To see the bytes of new cases::

    python -m tests.golden.test_encryption
"""

from pathlib import Path
from typing import NamedTuple

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from perdure import KeyRing
from perdure.codec import Codec
from perdure.encryption.rows import ANY_LINK, NO_LINK, Seal
from perdure.types import Item, SessionKey, append_key

FILE = Path(__file__).with_name("encrypted1.txt")

KEYS = {"2026-01": bytes(range(32)), "k": bytes(range(32, 64))}
KEY = SessionKey.of("acme", "session", "chat-7")
INCARNATION = bytes(range(0xC0, 0xD0))
COMMIT = bytes(range(0xA0, 0xB0))
CODEC = Codec(compress_min=None)
TURN = [{"role": "user", "content": "Wie spät ist es?"}, {"role": "assistant", "n": 1}]


class Case(NamedTuple):
    key_id: str
    item_key: bytes
    version: int
    link: bytes
    row: bytes


CASES = {
    "first": Case(
        "2026-01", append_key(b"l\0", 1, 0), 1, NO_LINK, CODEC.pack(KEY, COMMIT, TURN)[0]
    ),
    "second": Case(
        "k",
        append_key(b"lsub\0", 7, 0),
        7,
        append_key(b"", 5, 2),
        CODEC.pack(KEY, COMMIT, [1, None])[0],
    ),
    "staged": Case(
        "2026-01", append_key(b"l\0", 9, 0), 0, ANY_LINK, CODEC.pack(KEY, COMMIT, ["x"])[0]
    ),
    "cell": Case("2026-01", b"cstep", 3, NO_LINK, CODEC.seal(KEY, {"a": [1, 2]})),
    "cell-expires": Case(
        "2026-01", b"ctoken", 4, NO_LINK, CODEC.seal(KEY, "t", expires_at=1_790_000_000_000)
    ),
    "bytes": Case("2026-01", b"d\0\0\0\0\1", 5, NO_LINK, CODEC.seal_bytes(KEY, b"piece")),
}


def golden() -> dict[str, bytes]:
    lines = FILE.read_text().splitlines()
    return {name: bytes.fromhex(row) for name, row in (line.split() for line in lines if line)}


@pytest.mark.parametrize("name", CASES)
def test_a_sealed_row_is_opened(name: str) -> None:
    case = CASES[name]
    seal = Seal(KeyRing(KEYS, primary="2026-01"), KEY, INCARNATION)
    item = Item(case.item_key, golden()[name], case.version or 9)
    assert seal.open_one(item, 0) == case.row


@pytest.mark.parametrize("name", CASES)
def test_it_is_laid_out_and_sealed_as_the_format_says(name: str) -> None:
    """With nothing but what ``docs/format.md`` says."""
    case, sealed = CASES[name], golden()[name]
    is_log = case.row[1] < 0x40
    body = {0: 26, 1: 10 if case.row[1] & 0x10 else 2, 2: 2}[case.row[1] >> 6]
    header = (
        bytes((1, case.row[1] | 0x20, len(case.key_id)))
        + case.key_id.encode()
        + case.version.to_bytes(8, "big")
        + (case.link if is_log else b"")
        + case.row[2:body]
    )
    assert sealed[: len(header)] == header
    name_of_session = b"acme\0session\0chat-7"
    place = INCARNATION + len(name_of_session).to_bytes(2, "big") + name_of_session
    hkdf = HKDF(algorithm=SHA256(), length=32, salt=None, info=b"perdure row\0" + place)
    nonce, rest = sealed[len(header) : len(header) + 12], sealed[len(header) + 12 :]
    cipher = AESGCM(hkdf.derive(KEYS[case.key_id]))
    assert cipher.decrypt(nonce, rest, header + place + case.item_key) == case.row[body:]


def main() -> None:
    """Print a line for each case."""
    for name, case in CASES.items():
        ring = KeyRing(KEYS, primary=case.key_id)
        seal = Seal(ring, KEY, INCARNATION)
        row = seal.seal(case.item_key, case.row, case.version, case.link)
        print(name, row.hex())


if __name__ == "__main__":
    main()
