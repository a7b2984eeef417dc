"""``memory://`` opens a new store each time, and nothing else is accepted."""

import pytest

from perdure.errors import InvalidURL
from perdure.plugins import open_backend


@pytest.mark.parametrize("text", ["memory://", "memory:///", "MEMORY://"])
def test_it_opens_a_store_of_its_own(text: str) -> None:
    assert type(open_backend(text)).__name__ == "MemoryBackend"
    assert open_backend(text) is not open_backend(text)


@pytest.mark.parametrize(
    "text", ["memory://shared", "memory:///a", "memory://u:p@", "memory://?a=1"]
)
def test_what_suggests_sharing_is_refused(text: str) -> None:
    with pytest.raises(InvalidURL, match="memory://"):
        open_backend(text)
