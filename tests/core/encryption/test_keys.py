"""Key rings: what they take, and that they keep their secrets."""

import base64
import copy
import logging
import os
import pickle
import subprocess
import sys
import traceback
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from perdure import InvalidKeys, InvalidURL, KeyRing, Store, Undecryptable
from perdure.encryption.keys import KEYS_VARIABLE

SECRET = bytes(range(100, 132))
OTHER = bytes(range(32))
ENCODED = base64.b64encode(SECRET).decode()


def test_the_first_key_of_a_text_is_the_primary_one() -> None:
    text = f"2026-06:{ENCODED}, 2026-01:{base64.urlsafe_b64encode(OTHER).decode().rstrip('=')}"
    ring = KeyRing.parse(text)
    assert ring.ids == ("2026-06", "2026-01")
    assert ring.primary == "2026-06"
    assert not ring.accept_plaintext
    same = KeyRing({"2026-06": SECRET, "2026-01": OTHER}, primary="2026-06")
    for id in ring.ids:
        assert ring.derive(id, b"test", b"x") == same.derive(id, b"test", b"x")


def test_accepting_plaintext_is_declared_by_a_word() -> None:
    ring = KeyRing.parse(f"a:{ENCODED},plaintext")
    assert ring.ids == ("a",)
    assert ring.accept_plaintext
    assert "accept_plaintext" in repr(ring)


def test_a_new_key_is_random_and_can_be_read_back() -> None:
    one, other = KeyRing.generate("2026-01"), KeyRing.generate("2026-01")
    assert one != other
    assert KeyRing.parse(one).ids == ("2026-01",)


def test_keys_are_derived_by_hkdf() -> None:
    """RFC 5869, as the format says, so that others can read what we write."""
    hkdf = HKDF(algorithm=SHA256(), length=32, salt=None, info=b"purpose\0information")
    ring = KeyRing({"a": SECRET}, primary="a")
    assert ring.derive("a", b"purpose", b"information") == hkdf.derive(SECRET)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: KeyRing({}, primary="a"), "no key"),
        (lambda: KeyRing({"a": SECRET}, primary="b"), "no key 'b'"),
        (lambda: KeyRing({"a": SECRET[1:]}, primary="a"), "is 31 bytes"),
        (lambda: KeyRing({"a": ENCODED}, primary="a"), "is a str"),  # pyright: ignore[reportArgumentType]
        (lambda: KeyRing({"": SECRET}, primary=""), "a key's id"),
        (lambda: KeyRing({"a" * 33: SECRET}, primary="a"), "a key's id"),
        (lambda: KeyRing({"ä": SECRET}, primary="ä"), "a key's id"),
        (lambda: KeyRing({"a": SECRET, "b": SECRET}, primary="a"), "the same key"),
        (lambda: KeyRing.parse(""), "part 1"),
        (lambda: KeyRing.parse("plaintext"), "no key"),
        (lambda: KeyRing.parse(ENCODED), "part 1"),
        (lambda: KeyRing.parse(f"a:{ENCODED},b"), "part 2"),
        (lambda: KeyRing.parse(f"a:{ENCODED},a:{ENCODED}"), "twice"),
        (lambda: KeyRing.parse(f"a:{ENCODED[:-9]}!!!!"), "not written in base64"),
        (lambda: KeyRing.parse(f"a:{ENCODED[:20]}"), "is 15 bytes"),
        (lambda: KeyRing.generate("a b"), "a key's id"),
        (lambda: Store("memory://", keys=7), "not a int"),  # pyright: ignore[reportArgumentType]
    ],
)
def test_what_cannot_be_a_ring_is_refused_without_repeating_it(
    make: Callable[[], object], says: str
) -> None:
    with pytest.raises(InvalidKeys, match=says) as caught:
        make()
    shown = "".join(traceback.format_exception_only(caught.value))
    assert ENCODED[:12] not in shown
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or caught.value.__suppress_context__


@pytest.mark.parametrize(
    "make",
    [
        lambda: KeyRing.parse(f"a:{ENCODED},nonsense"),
        lambda: KeyRing.parse(f"nonsense,a:{ENCODED}"),
        lambda: KeyRing.parse(f"a:{ENCODED}!,b:{ENCODED}"),
        lambda: KeyRing.parse(f"a:{ENCODED},b:{ENCODED}"),
        lambda: KeyRing.parse(f"a:{ENCODED[:-8]}"),
        lambda: KeyRing({"a": SECRET}, primary="b"),
        lambda: KeyRing({"a": SECRET + b"1"}, primary="a"),
        lambda: Store("memory://", keys=f"a:{ENCODED},nonsense"),
        lambda: Store("nonsense", keys=f"a:{ENCODED}"),
    ],
)
def test_a_traceback_with_the_values_of_variables_shows_no_key(
    make: Callable[[], object],
) -> None:
    """As debuggers print them, and services that collect errors."""
    with pytest.raises((InvalidKeys, InvalidURL)) as caught:
        make()
    shown = ""
    error: BaseException | None = caught.value
    while error is not None:
        for frame, _ in traceback.walk_tb(error.__traceback__):
            if frame.f_code.co_filename != __file__:
                values = frame.f_locals.items()
                shown += " ".join(repr(value) for name, value in values if name != "self")
        error = error.__cause__ or error.__context__
    for form in (ENCODED[:12], repr(SECRET)[2:30], SECRET.hex()[:12]):
        assert form not in shown


def test_a_ring_shows_no_key(caplog: pytest.LogCaptureFixture) -> None:
    ring = KeyRing({"a": SECRET}, primary="a")
    store = Store("memory://", keys=ring)
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("test").debug("%s %r %s", ring, ring, vars(store))
    shown = f"{ring} {ring!r} {ring!s} {[ring]} {caplog.text}"
    assert repr(ring) == "KeyRing(ids=('a',), primary='a')"
    derived = ring.derive("a", b"perdure row", b"")
    for secret in (SECRET, derived, *ring._derivation_keys.values()):  # pyright: ignore[reportPrivateUsage]
        for form in (repr(secret), secret.hex(), base64.b64encode(secret).decode()):
            assert form.strip("b'") not in shown
    assert not hasattr(ring, "__dict__")


def test_a_ring_is_neither_pickled_nor_copied_nor_changed() -> None:
    ring = KeyRing({"a": SECRET}, primary="a")
    for action in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="secrets"):
            action(ring)
    with pytest.raises(AttributeError):
        ring.primary = "b"
    with pytest.raises(AttributeError):
        del ring.primary


def test_a_key_that_is_not_there_is_named() -> None:
    with pytest.raises(Undecryptable, match="'2020'") as caught:
        KeyRing({"a": SECRET}, primary="a").derive("2020", b"test", b"")
    assert caught.value.missing_key == "2020"


async def test_the_environment_gives_a_store_its_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEYS_VARIABLE, f"env:{ENCODED}")
    async with Store("memory://") as store:
        assert (await store.describe()).details["encryption"] == "AES-256-GCM, key 'env'"
    async with Store("memory://", keys=KeyRing({"own": OTHER}, primary="own")) as store:
        assert "'own'" in (await store.describe()).details["encryption"]
    for nothing in ("nonsense", "", " "):  # who meant to encrypt should not store in plain
        monkeypatch.setenv(KEYS_VARIABLE, nothing)
        with pytest.raises(InvalidKeys, match=KEYS_VARIABLE):
            Store("memory://")


def test_making_a_ring_loads_no_cryptography() -> None:
    program = (
        "import sys, perdure; perdure.Store('memory://', keys=perdure.KeyRing.generate('a'));"
        "assert 'cryptography' not in sys.modules"
    )
    environment = {**os.environ, "PYTHONWARNINGS": "error"}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)
