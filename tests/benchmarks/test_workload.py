"""The workload: the same for everyone, and of the size that it says."""

from statistics import mean
from zlib import compress

import msgspec

from benchmarks.workload import Workload


def test_the_same_seed_makes_the_same_turns() -> None:
    assert Workload(7).turns(20) == Workload(7).turns(20)
    assert Workload(7).turns(20) != Workload(8).turns(20)


def test_turns_follow_one_another() -> None:
    workload = Workload(7)
    assert [workload.turn(), *workload.turns(4)] == Workload(7).turns(5)


def test_a_turn_is_text_call_result_and_answer_of_about_3_kib() -> None:
    turns = Workload(7).turns(300)
    for turn in turns:
        assert [item["role"] for item in turn] == ["user", "assistant", "tool", "assistant"]
        assert len(str(turn[2]["content"])) == 2000
    sizes = [len(msgspec.msgpack.encode(turn)) / 1024 for turn in turns]
    assert 3.05 < mean(sizes) < 3.25


def test_it_compresses_as_transcripts_do() -> None:
    body = msgspec.msgpack.encode(Workload(7).turns(300))
    assert 2 < len(body) / len(compress(body)) < 4
