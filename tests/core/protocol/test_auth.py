"""Keys: who is let in, who is not, and that no message tells a secret."""

import json

import pytest

from perdure.protocol.auth import InvalidKeys, Key, Keys, Mode, bearer, sign
from perdure.protocol.limits import SIGNATURE_WINDOW_MS
from perdure.protocol.refusals import Code, Refused

NOW = 1_790_000_000_000
SECRET = "a-secret-of-thirty-two-characters"
OTHER = "b-secret-of-thirty-two-characters"
BODY = b"\x90"
PATH = "/v1/YWNtZQ/cw/YQ/read"

KEYS = Keys.parse(
    json.dumps(
        [
            {"id": "all", "secret": SECRET},
            {"id": "one", "secret": OTHER, "tenants": ["acme"]},
            {"id": "signs", "secret": SECRET, "mode": "hmac"},
        ]
    )
)


def check(header: str | None, *, target: str = PATH, body: bytes = BODY) -> Key:
    return KEYS.check(header, NOW, "POST", target, body)


def refused(header: str | None, *, target: str = PATH, body: bytes = BODY) -> Code:
    with pytest.raises(Refused) as raised:
        check(header, target=target, body=body)
    assert SECRET not in str(raised.value)
    assert OTHER not in str(raised.value)
    return raised.value.code


def test_a_bearer_key_lets_in() -> None:
    assert check(bearer("all", SECRET)).id == "all"


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        f"Bearer all.{OTHER}",
        f"Bearer nobody.{SECRET}",
        f"Bearer all.{SECRET[:-1]}",
        f"Bearer all.{SECRET}x",
        f"Bearer  all.{SECRET}",
        f"Basic all.{SECRET}",
        bearer("signs", SECRET),
        sign("all", SECRET, "POST", PATH, NOW, BODY),
        sign("signs", OTHER, "POST", PATH, NOW, BODY),
        sign("signs", SECRET, "GET", PATH, NOW, BODY),
        sign("signs", SECRET, "POST", PATH + "?x=1", NOW, BODY),
        sign("signs", SECRET, "POST", PATH, NOW, b"\x91\x01"),
        sign("signs", SECRET, "POST", PATH, NOW, BODY).upper(),
    ],
)
def test_anything_else_does_not(header: str | None) -> None:
    assert refused(header) is Code.UNAUTHORIZED


def test_a_signature_is_good_for_its_request_within_its_time() -> None:
    for time in (NOW - SIGNATURE_WINDOW_MS, NOW, NOW + SIGNATURE_WINDOW_MS):
        assert check(sign("signs", SECRET, "POST", PATH, time, BODY)).id == "signs"
    for time in (NOW - SIGNATURE_WINDOW_MS - 1, NOW + SIGNATURE_WINDOW_MS + 1, 0):
        assert refused(sign("signs", SECRET, "POST", PATH, time, BODY)) is Code.CLOCK_SKEW


def test_a_wrong_clock_is_told_the_right_time() -> None:
    with pytest.raises(Refused, match=str(NOW)):
        check(sign("signs", SECRET, "POST", PATH, 5, BODY))


def test_what_the_headers_tell_is_known_before_the_body_has_come() -> None:
    claim = KEYS.claim(sign("signs", SECRET, "POST", PATH, NOW, BODY), NOW)
    assert claim.key.id == "signs"
    with pytest.raises(Refused):
        claim.verify("POST", PATH, b"")
    with pytest.raises(Refused):
        KEYS.claim(bearer("all", OTHER), NOW)


def test_a_key_is_good_for_its_tenants() -> None:
    everything, one = check(bearer("all", SECRET)), check(bearer("one", OTHER))
    assert everything.allows("acme")
    assert everything.allows(None)
    assert one.allows("acme")
    assert not one.allows("acme2")
    assert not one.allows(None)


@pytest.mark.parametrize("text", ["", "  ", "[]"])
def test_without_keys_nobody_is_served(text: str) -> None:
    keys = Keys.parse(text)
    for header in (None, bearer("all", SECRET), bearer("", "")):
        with pytest.raises(Refused, match="no secret is set") as raised:
            keys.claim(header, NOW)
        assert raised.value.code is Code.UNAVAILABLE


@pytest.mark.parametrize(
    "keys",
    [
        "not JSON " + SECRET,
        {"id": "a", "secret": SECRET},
        [{"id": "a"}],
        [{"id": "a", "secret": "short"}],
        [{"id": "a.b", "secret": SECRET}],
        [{"id": "", "secret": SECRET}],
        [{"id": "a", "secret": SECRET + " x"}],
        [{"id": "a", "secret": SECRET + "\n"}],
        [{"id": "a\n", "secret": SECRET}],
        [{"id": "a", "secret": SECRET, "mode": SECRET}],
        [{"id": "a", "secret": SECRET, "tenant": ["acme"]}],
        [{"id": "a", "secret": SECRET, SECRET: 1}],
        [{"id": "a", "secret": SECRET, "tenants": "acme"}],
        [{"id": "a", "secret": SECRET}, {"id": "a", "secret": OTHER}],
    ],
)
def test_a_bad_list_of_keys_is_refused_whole(keys: object) -> None:
    text = keys if isinstance(keys, str) else json.dumps(keys)
    with pytest.raises(InvalidKeys) as raised:
        Keys.parse(text)
    assert SECRET not in str(raised.value)


def test_keys_show_no_secret() -> None:
    assert SECRET not in repr(Key.of("a", SECRET))
    assert SECRET not in str(Key.of("a", SECRET, Mode.HMAC))
    for id, secret in (("a:b", SECRET), ("a", SECRET + "\n"), ("a\n", SECRET)):
        with pytest.raises(InvalidKeys) as raised:
            Key.of(id, secret)
        assert SECRET not in str(raised.value)
