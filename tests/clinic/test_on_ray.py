"""What only Ray can show: films spread over processes, and a replica that dies under load."""

import asyncio
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

from clinic.films import find_films
from clinic.on_ray import over
from clinic.predict.batch import predict_films
from clinic.predict.outputs import Output
from clinic.predict.predictor import Order
from clinic.serve.answer import Answer
from tests.clinic.fakes import film_file, write_small_model

pytestmark = pytest.mark.ray


def test_films_spread_over_processes_give_the_same_table_and_files(tmp_path: Path):
    model = write_small_model(tmp_path / "small")
    for number in range(11):
        film_file(tmp_path / "in", f"film{number:02}")
    (tmp_path / "in" / "broken.dcm").write_bytes(b"nonsense")
    films = find_films([str(tmp_path / "in")])
    tables = {}
    for name, spread in (("here", None), ("there", over(2))):
        order = Order(models=(str(model),), out=str(tmp_path / name), threads=1, outputs=("mask", "seg"))
        tables[name] = predict_films(order, films, **({} if spread is None else {"spread": spread}))
    timed = ["read_s", "predict_s", "write_s"]
    pd.testing.assert_frame_equal(*(table.drop(columns=timed) for table in tables.values()))
    for file in (tmp_path / "here").glob("*.mask.png"):
        assert file.read_bytes() == (tmp_path / "there" / file.name).read_bytes()
    assert len(list((tmp_path / "there").glob("*.seg.dcm"))) == 11


@dataclass(frozen=True)
class EchoJob:
    """A job whose answers say which process gave them; each takes a while."""

    def open(self) -> Callable[[Sequence[bytes], tuple[Output, ...]], list[Answer]]:
        def answer(contents: Sequence[bytes], outputs: tuple[Output, ...]) -> list[Answer]:
            import time

            time.sleep(0.05)
            return [Answer(sop_uid=str(os.getpid()), objects=dict.fromkeys(outputs, content)) for content in contents]

        return answer


def test_a_replica_killed_under_load_loses_nothing():
    pytest.importorskip("grpc_reflection", reason="Ray Serve is not installed (extra `replicas`)")
    from clinic.serve.replicas import running

    async def ask(backend, killed: list[int]) -> tuple[list[bytes], set[str]]:
        first = await backend.answers([b"first"], ("seg",))
        waiting = [asyncio.ensure_future(backend.answers([f"film {n}".encode()], ("seg",))) for n in range(80)]
        await asyncio.sleep(0.2)
        killed.append(int(first[0].sop_uid))
        os.kill(killed[0], signal.SIGKILL)
        answers = [answer for found in await asyncio.gather(*waiting) for answer in found]
        return [answer.objects["seg"] for answer in answers], {answer.sop_uid for answer in answers}

    killed: list[int] = []
    with running(EchoJob(), replicas=2) as backend:
        contents, processes = asyncio.run(ask(backend, killed))
    assert contents == [f"film {n}".encode() for n in range(80)]
    assert len(processes - {str(killed[0])}) >= 1
