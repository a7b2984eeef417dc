"""Turns of an agent, as they look in practice: text, a tool call, its result, an answer.

Made from a seed, so that every run and every contender stores the same. A turn is four items,
about 3.15 KiB as MessagePack. The text is of English words as frequent as they are in English
(Zipf's law), and the tool results are of paths, numbers and identifiers, so that what
compresses them finds about as much to save as in real transcripts.
"""

import json
from itertools import accumulate
from pathlib import Path
from random import Random

Turn = list[dict[str, object]]
"""The items of one turn."""

_WORDS = Path(__file__).with_name("words.txt").read_text(encoding="utf-8").split()
"""Common English words, the most frequent first, and at the end those of our trade."""

_NAMES = _WORDS[-100:]
_CUMULATED = list(accumulate(1 / rank for rank in range(1, len(_WORDS) + 1)))
_TOOLS = ("search_files", "read_file", "run_tests", "query_orders", "fetch_page", "list_events")
_LEVELS = ("DEBUG", "INFO", "INFO", "INFO", "WARNING", "ERROR")
_SUFFIXES = ("py", "py", "md", "toml", "json", "sql")

_QUESTION_CHARACTERS = 270
_RESULT_CHARACTERS = 2_000
_ANSWER_CHARACTERS = 530


class Workload:
    """An endless conversation. The same seed makes the same turns, one after another."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)
        self._number = 0

    def turn(self) -> Turn:
        """The next turn."""
        self._number += 1
        random = self._random
        call = f"call_{random.getrandbits(96):024x}"
        arguments = {
            "query": " ".join(self._words(random.randint(4, 8))),
            "path": self._path(),
            "limit": random.choice((10, 20, 50)),
        }
        function = {"name": random.choice(_TOOLS), "arguments": json.dumps(arguments)}
        usage = {
            "input_tokens": random.randint(1_000, 90_000),
            "output_tokens": random.randint(80, 900),
        }
        return [
            {"role": "user", "content": self._prose(_QUESTION_CHARACTERS)},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": call, "type": "function", "function": function}],
            },
            {"role": "tool", "tool_call_id": call, "content": self._lines(_RESULT_CHARACTERS)},
            {"role": "assistant", "content": self._prose(_ANSWER_CHARACTERS), "usage": usage},
        ]

    def turns(self, count: int) -> list[Turn]:
        """The next ``count`` turns."""
        return [self.turn() for _ in range(count)]

    def _words(self, count: int) -> list[str]:
        return self._random.choices(_WORDS, cum_weights=_CUMULATED, k=count)

    def _prose(self, characters: int) -> str:
        """Sentences, as long as ``characters`` on average."""
        wanted = self._random.uniform(0.4, 1.6) * characters
        text = ""
        while len(text) < wanted:
            sentence = " ".join(self._words(self._random.randint(6, 18)))
            text += f"{sentence[0].upper()}{sentence[1:]}. "
        return text.rstrip()

    def _lines(self, characters: int) -> str:
        """Lines of a log or a listing, ``characters`` in all."""
        random = self._random
        lines: list[str] = []
        left = characters
        while left >= 0:
            at = random.randrange(86_400)
            line = (
                f"{at // 3600:02}:{at // 60 % 60:02}:{at % 60:02} {random.choice(_LEVELS)} "
                f"{self._path()}:{random.randint(1, 900)} {random.getrandbits(32):08x} "
                f"{' '.join(self._words(random.randint(5, 12)))}"
            )
            lines.append(line)
            left -= len(line) + 1
        return "\n".join(lines)[:characters]

    def _path(self) -> str:
        names = "/".join(self._random.choices(_NAMES, k=self._random.randint(2, 4)))
        return f"src/{names}.{self._random.choice(_SUFFIXES)}"
