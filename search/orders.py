"""What the slots are told: a configuration made into a trial's order, and the trial folders it is written to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from cluster.pools import Pool, Precision
from cluster.storage import Folder
from search.settings.config import StudyConfig
from search.trials import Trial
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
        pool_for: the pool that a configuration trains on.
        fingerprint: of the samples.
        session: names this run of the driver in the study's `session.json`; empty: no worker asks who is in charge.
    """

    def __init__(
        self,
        config: StudyConfig,
        *,
        folder: Folder,
        shards: str,
        pool_for: Callable[[TrialConfig], Pool],
        fingerprint: str = "",
        session: str = "",
    ) -> None:
        self.folder = folder
        self._config = config
        self._shards = shards
        self._fingerprint = fingerprint
        self._session = session
        self._pool_for = pool_for

    def record(self, name: str, *, final: bool = False) -> TrialRecord:
        """The folder of a trial or of a final."""
        return TrialRecord(self.folder / f"{'final' if final else 'trials'}/{name}")

    def info(
        self,
        name: str,
        role: Role,
        config: TrialConfig,
        params: dict[str, Any],
        *,
        pool: str | None = None,
        notes: dict[str, Any] | None = None,
    ) -> TrialInfo:
        """What is to be trained, on `pool` or, if None, where its configuration belongs."""
        chosen = self._config.pool(pool) if pool else self._pool_for(config)
        return TrialInfo(
            trial_id=name,
            role=role,
            config=config,
            params=params,
            notes=notes or {},
            pool=chosen.name,
            workers=chosen.workers,
            usd_per_hour=chosen.price,
            shards=self._shards,
            fingerprint=self._fingerprint,
        )

    def order(self, info: TrialInfo, trials: Sequence[Trial] = ()) -> TrialOrder:
        """The order to train it; `trial.json` is written first.

        Args:
            info: what is to be trained.
            trials: the study's so far: `precision: auto` means for all trials of a pool what it meant for the first.
        """
        final = info.role == "final"
        record = TrialRecord(self.folder / info.path)
        record.write_info(info)
        return TrialOrder(
            info=info,
            folder=record.folder.uri,
            pool=self._config.pool(info.pool),
            precision=_precision_of(info.pool, trials),
            session=self._session,
            study=self.folder.uri if self._session else "",
            retries=self._config.failures.retries,
            measure_test=final,
        )


def _precision_of(pool: str, trials: Sequence[Trial]) -> Precision | None:
    """The number format that `precision: auto` has come to on a pool; None: it was not tried yet."""
    tried = (t for t in trials if t.info.pool == pool and t.info.config.precision == "auto" and t.status.precision)
    return next((trial.status.precision for trial in tried), None)
