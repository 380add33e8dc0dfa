"""python -m pytest tests/trainables/test_life.py: what a trial goes through, and what its folder says of it."""

import errno
from pathlib import Path
from typing import Any

import pytest

from cluster.storage import Folder
from tests.trainables.fakes import MadeUpCrew, disc_data, epoch_row, order_for, small_config, train, without_times
from trainables.crew import LocalCrew
from trainables.data import TrialData
from trainables.life import CrewLostError, Life, conclude, end_trial, ending_of, enter, run_trial, tidy
from trainables.order import SESSION, NotInChargeError, TrialError, TrialOrder
from trainables.record import TrialRecord, TrialStatus, checkpoint_name
from trainables.step.worker import Worker

OUT_OF_MEMORY = TrialError("out_of_memory", "OutOfMemoryError: no room", "Traceback ...")


@pytest.fixture
def record(tmp_path: Path) -> TrialRecord:
    return TrialRecord(Folder(tmp_path / "trial"))


def order(record: TrialRecord, config: Any = None, **changes: Any) -> TrialOrder:
    return order_for(config or small_config(), str(record.folder), **changes)


def failing_once(error: Exception | TrialError, *, epoch: int = 2) -> Any:
    """Fails in that epoch, the first time it is reached."""
    left = [error]
    return lambda _, reached: left.pop() if reached == epoch and left else None


def test_a_trial_goes_from_its_order_to_its_end(record: TrialRecord) -> None:
    status = run_trial(order(record), MadeUpCrew())
    assert status == record.status()
    assert (status.status, status.epochs, status.parameters, status.precision) == ("complete", 3, 1_000, "fp32")
    assert [row.epoch for row in record.metrics()] == [1, 2, 3]
    assert "" < status.started_at <= status.ended_at
    assert record.info().config == small_config()


def test_an_epochs_checkpoint_is_there_before_its_row(record: TrialRecord) -> None:
    class Watched(LocalCrew):
        def call(self, command: Any, payload: Any = None) -> dict[int, Any]:
            answers = super().call(command, payload)
            if command == "epoch":
                epoch = answers[0].epoch
                assert record.folder.complete(f"checkpoint/{checkpoint_name(epoch)}")
                assert len(record.metrics()) == epoch - 1
            return answers

    assert run_trial(order(record), Watched(data=lambda *_: disc_data())).status == "complete"


def test_the_folder_says_that_a_trial_runs_before_it_is_begun(record: TrialRecord) -> None:
    class Watched(MadeUpCrew):
        def _begin(self, order: TrialOrder) -> Any:
            assert record.status().status == "running"
            return super()._begin(order)

    assert run_trial(order(record), Watched()).status == "complete"


def test_a_resumed_trial_tells_its_last_epoch_again_and_goes_on(record: TrialRecord) -> None:
    told = []
    for _ in range(2):  # the driver dies after its second epoch
        the_order = order(record)
        enter(the_order)
        life = Life(the_order, MadeUpCrew())
        told.append([life.epoch() for _ in range(2)])
    assert [[report.row and report.row.epoch for report in reports] for reports in told] == [[1, 2], [2, 3]]
    assert [[report.done for report in reports] for reports in told] == [[False, False], [False, True]]
    assert record.status().retries == 0


def test_a_trial_stopped_by_its_judge_is_pruned_with_the_reason(record: TrialRecord) -> None:
    the_order = order(record)
    status = run_trial(the_order, MadeUpCrew(), lambda report: conclude(the_order, report, stop="it is slow"))
    assert (status.status, status.reason, status.epochs) == ("pruned", "it is slow", 1)


def test_the_last_epoch_completes_a_trial_whatever_its_judge_says(record: TrialRecord) -> None:
    the_order = order(record, small_config(epochs=1))
    status = run_trial(the_order, MadeUpCrew(), lambda report: conclude(the_order, report, stop="it is slow"))
    assert (status.status, status.reason) == ("complete", "")


def test_lost_workers_are_a_retry_from_the_last_epoch(record: TrialRecord) -> None:
    crew = MadeUpCrew(fail=failing_once(CrewLostError("the actor died")))
    status = run_trial(order(record), crew)
    assert (status.status, status.retries) == ("complete", 1)
    assert crew.told == ["begin", "epoch", "epoch", "begin", "epoch", "epoch"]
    assert "begins after epoch 1" in record.folder.read_text("log.txt")


def test_workers_that_die_too_often_fail_the_trial(record: TrialRecord) -> None:
    crew = MadeUpCrew(fail=lambda order, epoch: CrewLostError("the actor died"))
    status = run_trial(order(record, retries=1), crew)
    assert (status.status, status.failure, status.retries) == ("failed", "worker_died", 2)
    assert status.reason == "worker died 2 times: the actor died"


def test_a_lost_machine_is_no_retry(record: TrialRecord) -> None:
    crew = MadeUpCrew(fail=failing_once(CrewLostError("the node is gone", "machine_lost")))
    assert (status := run_trial(order(record, retries=0), crew)).status == "complete"
    assert status.retries == 0


def test_a_slot_that_died_with_its_trial_is_a_retry(record: TrialRecord) -> None:
    the_order = order(record, retries=1)
    enter(the_order)
    Life(the_order, MadeUpCrew()).epoch()
    assert run_trial(the_order, MadeUpCrew()).retries == 1


def test_a_slot_that_dies_too_often_fails_the_trial(record: TrialRecord) -> None:
    the_order = order(record, retries=1)
    enter(the_order)
    for _ in range(2):
        Life(the_order, MadeUpCrew()).epoch()
    assert (status := run_trial(the_order, MadeUpCrew())).failure == "worker_died"
    assert "the slot's process died" in status.reason


@pytest.mark.parametrize("error", [OUT_OF_MEMORY, CrewLostError("running low on memory", "out_of_memory")])
def test_a_trial_short_of_memory_begins_anew_in_smaller_parts(record: TrialRecord, error: Any) -> None:
    record.folder.write_text("checkpoint/epoch_0001/weights.safetensors", "of one part")
    crew = MadeUpCrew(fail=failing_once(error))
    status = run_trial(order(record), crew)
    assert (status.status, status.epochs, status.retries) == ("complete", 3, 0)
    assert crew.told == ["begin", "epoch", "epoch", "begin", "epoch", "epoch", "epoch"]
    assert record.info().config == small_config(accumulation=2)
    assert not record.folder.exists("checkpoint")
    assert "in 2 parts" in record.folder.read_text("log.txt")


def test_a_batch_is_never_split_below_two_images(record: TrialRecord) -> None:
    crew = MadeUpCrew(fail=lambda order, epoch: OUT_OF_MEMORY)
    status = run_trial(order(record), crew)  # 4 images: 2 parts, and no more
    assert (status.status, status.failure) == ("failed", "out_of_memory")
    assert record.info().config.accumulation == 2


def test_a_split_trial_stays_split_when_it_is_resumed(record: TrialRecord) -> None:
    crew = MadeUpCrew(fail=failing_once(OUT_OF_MEMORY, epoch=1))
    first = order(record)
    enter(first)
    Life(first, crew).epoch()
    run_trial(
        order(record), MadeUpCrew(curve=lambda order, epoch: epoch_row(epoch, order.info.config.accumulation / 4))
    )
    assert [row.val_dice for row in record.metrics()[1:]] == [0.5, 0.5]


def test_a_failure_of_one_worker_is_the_trials(record: TrialRecord) -> None:
    class OneFails(MadeUpCrew):
        def call(self, command: Any, payload: Any = None) -> dict[int, Any]:
            second = TrialError("exception", "ValueError: rank 1", "Traceback ...") if command == "epoch" else None
            return {**super().call(command, payload), 1: second or super().call("end")[0]}

    status = run_trial(order(record), OneFails())
    assert (status.status, status.reason, status.traceback) == ("failed", "ValueError: rank 1", "Traceback ...")
    assert record.metrics() == []


def test_a_trial_that_failed_can_be_tried_again(record: TrialRecord) -> None:
    error = TrialError("exception", "ValueError: once", "Traceback ...")
    assert run_trial(order(record), MadeUpCrew(fail=failing_once(error))).status == "failed"
    status = run_trial(order(record), MadeUpCrew())
    assert (status.status, status.reason, status.traceback, status.failure) == ("complete", "", "", None)


def test_a_life_of_an_earlier_driver_writes_nothing_more(record: TrialRecord, tmp_path: Path) -> None:
    study = Folder(tmp_path)
    study.write_json(SESSION, {"session": "old"})
    the_order = order(record, session="old", study=study.uri)
    enter(the_order)
    life = Life(the_order, MadeUpCrew())
    life.epoch()
    study.write_json(SESSION, {"session": "new"})
    before = {name: record.folder.read_bytes(name) for name in record.folder.names()}
    with pytest.raises(NotInChargeError, match="session new"):
        life.epoch()
    assert {name: record.folder.read_bytes(name) for name in record.folder.names()} == before


def test_a_worker_of_an_earlier_driver_saves_no_checkpoint(record: TrialRecord, tmp_path: Path) -> None:
    study = Folder(tmp_path)
    study.write_json(SESSION, {"session": "old"})
    crew = LocalCrew(data=lambda *_: disc_data())
    crew.call("begin", order(record, session="old", study=study.uri))
    study.write_json(SESSION, {"session": "new"})
    answer = crew.call("epoch")[0]
    assert isinstance(answer, TrialError) and "session new" in answer.reason
    assert not record.folder.exists("checkpoint")


@pytest.mark.parametrize("file", ["metrics.jsonl", "status.json"])
def test_a_full_disk_ends_no_trial(record: TrialRecord, file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write = Folder.write_bytes
    full = []

    def write_while_there_is_room(folder: Folder, name: str, content: bytes) -> None:
        if full and name == file:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(folder, name, content)

    monkeypatch.setattr(Folder, "write_bytes", write_while_there_is_room)
    the_order = order(record)
    enter(the_order)
    life = Life(the_order, MadeUpCrew())
    life.epoch()
    full.append(True)
    report = life.epoch()
    assert report.failure is not None and report.failure.kind == "disk_full"
    with pytest.raises(OSError, match="could not be written"):
        ending_of(report)
    assert record.status().status == "running"
    full.clear()
    assert run_trial(order(record), MadeUpCrew()).status == "complete"


def test_a_final_is_measured_on_the_test_split_with_examples(record: TrialRecord) -> None:
    crew = LocalCrew(Worker(threads=1), data=lambda *_: disc_data())
    run_trial(order(record, small_config(epochs=1), measure_test=True), crew)
    measures, examples = record.test(), record.examples()
    assert measures is not None and examples is not None
    assert measures["images"] == 4 and measures["best_epoch"] == 1
    assert examples.sample_ids == ["disc-0", "disc-1", "disc-2", "disc-3"]


def test_data_without_a_test_split_fail_no_trial(record: TrialRecord) -> None:
    data = disc_data()
    crew = LocalCrew(Worker(threads=1), data=lambda *_: TrialData(data.train, data.val))
    assert run_trial(order(record, small_config(epochs=1), measure_test=True), crew).status == "complete"
    assert record.test() is None and "no test split" in record.folder.read_text("log.txt")


def test_test_measures_are_of_the_best_epochs_weights(record: TrialRecord) -> None:
    data = disc_data()
    same = TrialData(data.train, data.val, data.val)
    config = small_config(epochs=4, learning_rate=0.3, optimiser="sgd", norm_statistics="running")
    run_trial(order(record, config, measure_test=True), LocalCrew(Worker(threads=1), data=lambda *_: same))
    dice = [row.val_dice for row in record.metrics()]
    assert dice[-1] < max(dice), "the last epoch must not be the best"
    assert record.test() is not None and record.test()["dice"] == max(dice)


def test_of_a_kept_trial_the_best_epochs_weights_stay_and_no_checkpoint(record: TrialRecord) -> None:
    train(small_config(epochs=4), str(record.folder))
    best = max(record.metrics(), key=lambda row: row.val_dice).epoch
    weights = record.folder.read_bytes(f"checkpoint/{checkpoint_name(best)}/weights.safetensors")
    for _ in range(2):  # killed in between, it is done again
        tidy(record, keep=True)
        assert record.folder.read_bytes("weights.safetensors") == weights
        assert not record.folder.exists("checkpoint")
    tidy(record, keep=False)
    assert not record.folder.exists("weights.safetensors")


def test_another_trial_is_not_written_over(record: TrialRecord) -> None:
    run_trial(order(record), MadeUpCrew())
    with pytest.raises(ValueError, match=r"batch_size 4 there, 8 here"):
        run_trial(order(record, small_config(batch_size=8)), MadeUpCrew())


def test_seconds_and_dollars_are_those_of_the_slot_retries_included(record: TrialRecord) -> None:
    the_order = order(record)
    info = the_order.info.model_copy(update={"usd_per_hour": 3.6})
    enter(the_order := the_order.model_copy(update={"info": info}))
    crew = MadeUpCrew(fail=failing_once(CrewLostError("died")))
    life = Life(the_order, crew, clock=crew.clock)
    while not (report := life.epoch()).done:
        continue
    assert end_trial(the_order, ending_of(report) or pytest.fail("it is done")) == record.status()
    assert (record.status().slot_s, record.status().usd) == (4.0, 0.004)


def test_a_trial_in_this_process_equals_a_bare_session(tmp_path: Path) -> None:
    from trainables.trial import TrialSession

    session = TrialSession(small_config(), disc_data(), worker=Worker(threads=1))
    assert without_times(train(small_config(), tmp_path)) == without_times([session.train_epoch() for _ in range(3)])


def test_a_pending_trial_has_no_status() -> None:
    assert TrialStatus().status == "pending"
