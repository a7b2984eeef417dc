"""Turns of an agent, as they look in practice: text, a tool call, its result, an answer.

Made from a seed, so that every run and every contender stores the same. A turn is four items,
about 3.15 KiB as MessagePack. The text is of English words as frequent as they are in English
(Zipf's law), and the tool results are of paths, numbers and identifiers, so that what
compresses them finds about as much to save as in real transcripts.
"""

import json
from itertools import accumulate
from random import Random

Turn = list[dict[str, object]]
"""The items of one turn."""

_WORDS = """
the of and to in a is that for it as was with be by on not he i this are or his from at which
but have an had they you were their one all we can her has there been if more when will would
who so no out up into do any your what them some could only other time than then my now should
such like our over man me even most made after also did many before must through back years
where much way well down because good each those people how too little state world very own
see men work long get here between both life being under never day same another know while
last might us great old year off come since against go came right used take three states
himself few house use during without again place around however small found thought went say
part once general high upon school every don't does got united left number course war until
always away something fact though water less public put think almost hand enough far took head
yet government system better set told nothing night end why called didn't eyes find going look
asked later knew point next program city business give group toward young days let room word
side social given present several order national possible rather second face per among form
important often things looked early white case john large big need four within felt along
children saw best church ever least power development light thing seemed family interest want
members mind country area others done turned although open god service certain kind problem
began different door thus help sense means whole matter file function test value error return
request response server client session model token cache index query result change branch
build deploy commit patch review config option default version release package module import
class method argument parameter string list table column record update delete insert retry
timeout latency memory thread process queue worker event stream message agent tool prompt
context window budget limit schema field type check verify measure report summary plan step
because therefore probably clearly usually instead already together quickly first finally
""".split()

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
        while left > 0:
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
