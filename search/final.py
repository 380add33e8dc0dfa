"""The finals: which of the complete trials win, and how each of them is trained in full, with several seeds.

    finals = Finals(config, orders, trials)      # once the search is over
    order = finals.next(spent, running)          # final/vgg19/1, final/mobilenet/1, final/vgg19/2, ...; None: no more

Every winner is trained with `final.seeds` seeds that the search did not use: first all with their first seed, so that a
budget that ends among the finals has compared like with like. With one seed a final goes on from the trial that won,
where the same epochs would only be computed again: the schedule is constant, and pool and budget allow it.
"""

from __future__ import annotations

import itertools
import logging
import tempfile
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cluster.storage import Folder
from search.budget import Spent
from search.orders import Orders
from search.settings.config import StudyConfig
from search.trials import Trial, Trials
from trainables.config import TrialConfig
from trainables.life import Ending, end_trial
from trainables.order import TrialOrder
from trainables.pareto import pareto_front, spread
from trainables.record import CHECKPOINTS, ENDED, TrialInfo, TrialRecord, final_paths

LOG = logging.getLogger("mammosearch")
NO_LONGER = "its settings are no winner's any more: the study went on with others"


def winners(trials: Trials, config: StudyConfig) -> list[Trial]:
    """The configurations that are trained in full, at most `final.top`, each of another encoder if so wanted.

    Of one objective they are the best complete trials. Of several they stand for the Pareto front: the best by the
    first objective, then always the one that adds most to the volume that the chosen ones cover.
    """
    complete, final = trials.complete(), config.final
    kinds = [t.info.config.encoder if final.distinct_encoders else t.info.trial_id for t in complete]
    if len(config.objective) > 1:
        return [complete[index] for index in spread(gains(complete, config), most=final.top, kinds=kinds)]
    first: dict[str, Trial] = {}
    for kind, trial in zip(kinds, complete, strict=True):
        first.setdefault(kind, trial)
    return list(first.values())[: final.top]


def certain(trials: Trials, config: StudyConfig) -> list[Trial]:
    """The winners that no open trial can displace, whatever it comes to, once no new one begins; best first.

    Of several objectives none is: any point of the front may be beaten.
    """
    if len(config.objective) > 1:
        return []
    wins, distinct = winners(trials, config), config.final.distinct_encoders
    kinds = [trial.info.config.encoder if distinct else trial.info.trial_id for trial in wins]
    rivals = {t.info.config.encoder if distinct else t.info.trial_id for t in trials if not t.ended}
    return [
        trial
        for place, (trial, kind) in enumerate(zip(wins, kinds, strict=True))
        if kind not in rivals and place + len(rivals - set(kinds[:place])) < config.final.top
    ]


def gains(complete: Sequence[Trial], config: StudyConfig) -> npt.NDArray[np.float64]:
    """The objectives of complete trials, (trials, objectives), signed so that more is better."""
    signs = [1.0 if objective.maximise else -1.0 for objective in config.objective]
    return np.array([trial.values for trial in complete], float).reshape(len(complete), len(signs)) * signs


def to_be_kept(trials: Trials, config: StudyConfig) -> set[int]:
    """Numbers of the trials whose checkpoint stays until the finals begin: one may go on from it."""
    if config.final.seeds > 1 or not config.final.top:
        return set()
    if len(config.objective) == 1:
        wins = winners(trials, config)
    else:  # which of the front win may change with every trial
        complete = trials.complete()
        wins = [trial for trial, on in zip(complete, pareto_front(gains(complete, config)), strict=True) if on]
    return {trial.number for trial in wins if may_go_on(trial, config)}


def may_go_on(trial: Trial, config: StudyConfig) -> bool:
    """Whether a final can go on where a trial of the search stopped, and be the same as one that begins anew."""
    final, info = config.final, trial.info
    return (
        final.seeds == 1
        and final.pool in (None, info.pool)
        and info.config.epochs <= final.epochs
        and info.config.open_ended
    )


def epochs_of_final(config: StudyConfig) -> int:
    """Epochs that one final trains, where that is known beforehand: without those that it takes over."""
    space, final = config.search_space, config.final
    axis = space.axes.get("schedule")
    schedules = {
        *(axis.choices or () if axis else ()),
        *([] if axis and not axis.when else [space.constant("schedule")]),
    }
    goes_on = final.seeds == 1 and final.pool is None and schedules == {"constant"}
    taken = config.budget.epochs if goes_on and config.budget.epochs <= final.epochs else 0
    return final.epochs - taken


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A final that is to be trained."""

    info: TrialInfo
    winner: Trial
    first: bool
    """Whether it is its winner's first."""

    @property
    def usd(self) -> float:
        """What it will cost, by what the winner's epochs have cost in the search."""
        epoch_s = self.winner.status.slot_s / max(1, len(self.winner.curve))
        return self.info.usd(epoch_s * (self.info.config.epochs - self.info.taken_epochs))


class Finals:
    """The finals of a study, in the order in which they are to be trained.

    Args:
        config: the study.
        orders: makes the orders; knows the study's folder.
        trials: those of the search.
        early: the winners that are `certain` while trials are still open; None: the search is over.
    """

    def __init__(self, config: StudyConfig, orders: Orders, trials: Trials, early: list[Trial] | None = None) -> None:
        self._config, self._orders, self._trials = config, orders, trials
        self._begun: list[Planned] = []
        wins = winners(trials, config) if early is None else early
        by_winner = [list(self._of(trial)) for trial in wins]
        in_turn = itertools.chain.from_iterable(itertools.zip_longest(*by_winner))
        planned = [one for one in in_turn if one is not None]
        if early is None:
            self._give_up({one.info.path for one in planned})
        self._waiting = [one for one in planned if not _ended(self._record(one.info.path))]

    def next(self, spent: Spent, running: Container[str]) -> TrialOrder | None:
        """The next final to train; None if there is none, or no money for one.

        Args:
            spent: the money.
            running: paths of the trials under way.
        """
        while self._waiting and spent.money_over() is None:
            planned = self._waiting.pop(0)
            if planned.info.path in running:  # begun before the search was over
                self._begun.append(planned)
                continue
            under_way = [one for one in self._begun if one.info.path in running]
            promised = sum(max(0.0, one.usd - spent.usd_of(one.info.path)) for one in under_way)
            if not planned.first and not spent.pays(promised + planned.usd):
                LOG.info("%s is left out: about $%.2f, more than is left", planned.info.path, planned.usd)
                continue
            self._begun.append(planned)
            self._carry_over(planned)
            return self._orders.order(planned.info, self._trials)
        return None

    # -- what there is to be -----------------------------------------------------------------------------------------

    def _of(self, winner: Trial) -> Iterator[Planned]:
        """One final a seed."""
        if (going_on := self._going_on(winner)) is not None:
            yield Planned(info=going_on, winner=winner, first=True)
            return
        for nth, seed in enumerate(self._seeds()):
            config = winner.info.config.model_copy(update={"epochs": self._config.final.epochs, "seed": seed})
            yield Planned(info=self._info(winner, config), winner=winner, first=nth == 0)

    def _seeds(self) -> Iterator[int]:
        """The first seeds above the study's that no trial was trained with."""
        used = {trial.info.config.seed for trial in self._trials}
        unused = (seed for seed in itertools.count(self._config.study.seed + 1) if seed not in used)
        return itertools.islice(unused, self._config.final.seeds)

    def _going_on(self, winner: Trial) -> TrialInfo | None:
        """The final that goes on from the winner's checkpoint; None where it cannot, and is trained from the start."""
        if not may_go_on(winner, self._config):
            return None
        config = winner.info.config.model_copy(update={"epochs": self._config.final.epochs})
        info = self._info(winner, config, taken_from=winner.info.path, taken_epochs=winner.info.config.epochs)
        began = self._record(info.path).folder.exists("trial.json")
        return info if began or self._checkpoints(winner).names() else None

    def _info(self, winner: Trial, config: TrialConfig, *, taken_from: str = "", taken_epochs: int = 0) -> TrialInfo:
        info = self._orders.info(
            f"{self._name(winner, config)}/{config.seed}",
            "final",
            config,
            winner.info.params,
            pool=self._config.final.pool,
        )
        return info.model_copy(update={"taken_from": taken_from, "taken_epochs": taken_epochs})

    def _name(self, winner: Trial, config: TrialConfig) -> str:
        """The encoder; with the trial's number, and the epochs, where finals of other settings have that name."""
        encoder, number = winner.info.config.encoder.replace("/", "-"), winner.info.trial_id
        names = [encoder] if self._config.final.distinct_encoders else []
        names += [f"{encoder}-{number}", f"{encoder}-{number}-{config.epochs}-epochs"]
        return next((name for name in names if self._free_for(name, config)), names[-1])

    def _free_for(self, name: str, config: TrialConfig) -> bool:
        """Whether all finals of this name have these settings, or there are none."""
        folder, same = self._orders.folder, {"seed": config.seed, "accumulation": config.accumulation}
        if folder.exists(f"final/{name}/trial.json"):
            return False  # of a version that trained each winner once, without a folder a seed
        held = (self._record(f"final/{name}/{seed}") for seed in (folder / "final" / name).names())
        infos = (record.info() for record in held if record.folder.exists("trial.json"))
        return all(info.config.model_copy(update=same) == config for info in infos)

    # -- what was before ---------------------------------------------------------------------------------------------

    def _give_up(self, planned: Container[str]) -> None:
        """End the finals that were under way and are to be trained no more."""
        for path in final_paths(self._orders.folder):
            record = self._record(path)
            if path not in planned and record.folder.exists("trial.json") and not _ended(record):
                end_trial(self._orders.order(record.info()), Ending(status="pruned", reason=NO_LONGER))

    def _carry_over(self, planned: Planned) -> None:
        """Put the winner's checkpoints into the folder of the final that goes on from them, if it has not begun."""
        record, source = self._record(planned.info.path), self._checkpoints(planned.winner)
        if not planned.info.taken_from or record.folder.exists("trial.json"):
            return
        for name in filter(source.complete, source.names()):
            with tempfile.TemporaryDirectory(prefix="mammosearch-final-") as scratch:
                source.get_folder(name, Path(scratch) / name)
                record.folder.put_folder(Path(scratch) / name, f"{CHECKPOINTS}/{name}")
        record.log(f"goes on from {planned.info.taken_from} after its {planned.info.taken_epochs} epochs")

    def _checkpoints(self, trial: Trial) -> Folder:
        return self._orders.folder / trial.info.path / CHECKPOINTS

    def _record(self, path: str) -> TrialRecord:
        return TrialRecord(self._orders.folder / path)


def _ended(record: TrialRecord) -> bool:
    return record.status().status in ENDED
