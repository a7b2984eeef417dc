"""Documents as agents have them, of noise that nothing makes shorter, and what saves cost."""

import random
from base64 import b85encode
from typing import Any

from perdure.backend import Backend
from perdure.forwarding import Forwarding
from perdure.types import Commit, Committed, Read, SessionKey, Snapshot


def text(rng: random.Random, size: int) -> str:
    """One line that hardly compresses."""
    return b85encode(rng.randbytes(size * 4 // 5)).decode()


def source(rng: random.Random, size: int) -> str:
    """Many lines."""
    return "".join(f"{text(rng, rng.randint(5, 75))}\n" for _ in range(size // 40))


def message(rng: random.Random) -> dict[str, Any]:
    """A message of a chat, 1.4 KB on average."""
    return {
        "role": rng.choice(["user", "assistant", "tool"]),
        "content": [{"type": "text", "text": text(rng, rng.randint(100, 2500))}],
        "ts": rng.random() * 1e9,
    }


def chat(size: int, seed: int = 0) -> dict[str, Any]:
    """Messages and files, of about ``size`` bytes."""
    rng = random.Random(seed)
    return {
        "messages": [message(rng) for _ in range(size // 2 // 1400)],
        "files": {f"src/f{n}.py": source(rng, 50_000) for n in range(size // 2 // 50_000)},
    }


class Meter(Forwarding):
    """Counts round trips, and every byte of keys and values that is written."""

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
        self.reads = self.commits = self.stagings = self.bytes = self.deletes = 0

    async def read(self, key: SessionKey, *reads: Read) -> Snapshot:
        self.reads += 1
        return await super().read(key, *reads)

    async def commit(self, key: SessionKey, commit: Commit) -> Committed:
        self.commits += 1
        self.deletes += len(commit.deletes)
        self.bytes += sum(len(item) + len(value) for item, value in commit.puts)
        return await super().commit(key, commit)

    async def stage(
        self,
        key: SessionKey,
        incarnation: bytes,
        stage: bytes,
        puts: tuple[tuple[bytes, bytes], ...],
    ) -> None:
        self.stagings += 1
        self.bytes += sum(len(item) + len(value) for item, value in puts)
        await super().stage(key, incarnation, stage, puts)

    def reset(self) -> None:
        self.reads = self.commits = self.stagings = self.bytes = self.deletes = 0

    @property
    def trips(self) -> int:
        return self.reads + self.commits + self.stagings
