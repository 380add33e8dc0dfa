"""What the slots are told: a configuration made into a trial's order, and the trial folders it is written to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cluster.pools import Pool
from cluster.storage import Folder
from search.settings.config import StudyConfig
from trainables.config import TrialConfig
from trainables.order import TrialOrder
from trainables.record import Role, TrialInfo, TrialRecord


def trial_id(number: int) -> str:
    """A trial's name: its number in the Optuna study, of at least four digits."""
    return f"{number:04d}"


class Orders:
    """Makes a study's orders.

    Args:
        config: the study.
        folder: the study's folder.
        shards: path or URI of the shard folder.
        session: names this run of the driver in the study's `session.json`; empty: no worker asks who is in charge.
        place: the pool that a configuration trains on.
    """

    def __init__(
        self,
        config: StudyConfig,
        *,
        folder: Folder,
        shards: str,
        session: str,
        place: Callable[[TrialConfig], Pool],
    ) -> None:
        self._config = config
        self._folder = folder
        self._shards = shards
        self._session = session
        self._place = place

    def record(self, name: str, *, final: bool = False) -> TrialRecord:
        """The folder of a trial or of a final."""
        return TrialRecord(self._folder / f"{'final' if final else 'trials'}/{name}")

    def info(
        self, name: str, role: Role, config: TrialConfig, params: dict[str, Any], pool: str | None = None
    ) -> TrialInfo:
        """What is to be trained, on `pool` or, if None, where its configuration belongs."""
        chosen = self._config.pool(pool) if pool else self._place(config)
        return TrialInfo(
            trial_id=name,
            role=role,
            config=config.model_dump(mode="json"),
            params=params,
            pool=chosen.name,
            workers=chosen.workers,
            usd_per_hour=chosen.price,
        )

    def order(self, info: TrialInfo) -> TrialOrder:
        """The order to train it; `trial.json` is written first."""
        final = info.role == "final"
        record = self.record(info.trial_id, final=final)
        record.write_info(info)
        return TrialOrder(
            info=info,
            folder=record.folder.uri,
            shards=self._shards,
            pool=self._config.pool(info.pool),
            session=self._session,
            study=self._folder.uri if self._session else "",
            retries=self._config.failures.retries,
            measure_test=final,
            keep_weights=final,
        )
