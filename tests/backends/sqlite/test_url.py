"""``sqlite://`` URLs."""

from pathlib import Path

import pytest

from perdure.backend import Durability
from perdure.errors import InvalidURL
from perdure.uri import parse

from perdure_sqlite.url import open_url


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///sessions.db", Path.cwd() / "sessions.db"),
        ("sqlite:///a/b.db", Path.cwd() / "a" / "b.db"),
        ("sqlite:////var/lib/sessions.db", Path("/var/lib/sessions.db")),
        ("sqlite:///with%20space%3F.db", Path.cwd() / "with space?.db"),
    ],
)
def test_the_path(url: str, path: Path) -> None:
    assert open_url(parse(url))._file.path == path


def test_options() -> None:
    plain = open_url(parse("sqlite:///s.db"))
    assert plain.capabilities.durability is Durability.HOST
    assert plain._file._setup
    fast = open_url(parse("sqlite:///s.db?synchronous=normal&setup=false&timeout=2.5"))
    assert fast.capabilities.durability is Durability.PROCESS
    assert not fast._file._setup
    assert fast._file.timeout == 2.5


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("sqlite://", "memory://"),
        ("sqlite:///", "memory://"),
        ("sqlite:///:memory:", "memory://"),
        ("sqlite://sessions.db", "not a host"),
        ("sqlite://localhost/sessions.db", "not a host"),
        ("sqlite://me:secret@/sessions.db", "password"),
        ("sqlite:///s.db?synchronous=off", "full"),
        ("sqlite:///s.db?setup=no", "true"),
        ("sqlite:///s.db?timeout=soon", "seconds"),
        ("sqlite:///s.db?timeout=-1", "seconds"),
        ("sqlite:///s.db?timeout=nan", "seconds"),
        ("sqlite:///s.db?syncronous=full", "synchronous"),
    ],
)
def test_what_makes_no_sense_is_refused_with_a_hint(url: str, hint: str) -> None:
    with pytest.raises(InvalidURL, match=hint) as caught:
        open_url(parse(url))
    assert "secret" not in str(caught.value)
