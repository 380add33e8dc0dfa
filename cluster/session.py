"""Start or join Ray: the same call on a laptop and on a cluster.                                            [Ray]

Import this module before `ray`: what Ray reads from the environment when it is imported is set here and nowhere else.
Ruff's import order (pyproject.toml, section `before-ray`) sees to it.

    from cluster.session import connect
    with connect(slots={"cpu": 2}) as session: ...
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

JOINS_CLUSTER = bool(os.environ.get("RAY_ADDRESS"))

ENVIRONMENT = {
    "RAY_AUTH_MODE": "token",  # says explicitly what is the default for local clusters, so that Ray does not warn
    "RAY_worker_niceness": "0",  # Ray's default of 15 starves trials on a machine that does anything else
    "RAY_worker_maximum_startup_concurrency": "8",  # slots start side by side; with 2, two cores, a warning is printed
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "1",
    "RAY_AIR_NEW_OUTPUT": "0",  # the new output prints a box at each start, whatever the verbosity
    "RAY_SCHEDULER_EVENTS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # the behaviour to come; unset, each start prints a warning
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # 2 s by default: a worker group starts and ends that much later
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "3600",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",  # otherwise what a worker prints appears twice
    "RAY_TRAIN_ENABLE_CONTROLLER_STRUCTURED_LOGGING": "0",
    "RAY_TRAIN_ENABLE_WORKER_STRUCTURED_LOGGING": "0",
    "RAY_TRAIN_ENABLE_STATE_ACTOR_RECONCILIATION": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the trial folder is ours (trainables/record.py)
    "TUNE_RESULT_BUFFER_LENGTH": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "600",  # nothing of ours reads Tune's snapshots
    "TUNE_WARN_THRESHOLD_S": "5",
}
if not JOINS_CLUSTER:
    # One machine: every server of Ray listens on loopback only, and no spot instance needs watching.
    ENVIRONMENT["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    ENVIRONMENT["RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"] = "0"

for _name, _value in ENVIRONMENT.items():
    os.environ.setdefault(_name, _value)

import ray  # noqa: E402

from cluster.machine import check_address, check_machine, machine_cpus, session_folder  # noqa: E402
from cluster.ray_token import private_token  # noqa: E402
from cluster.slots import slot_resource  # noqa: E402

PACKAGES = ("cluster", "data_prep", "trainables", "search", "results", "clinic")
ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Session:
    """A connection to Ray."""

    local: bool
    """Whether this process started Ray and ends it."""
    cpus: float
    gpus: float
    resources: Mapping[str, float]
    """All resources of the cluster at the time of connecting."""


@contextmanager
def connect(
    *,
    cpus: int | None = None,
    slots: Mapping[str, int] | None = None,
    resources: Mapping[str, float] | None = None,
    object_store_gb: float = 1.0,
    dashboard: bool = True,
) -> Iterator[Session]:
    """Join the cluster of `RAY_ADDRESS`, or start Ray on this machine; leave or end it afterwards.

    Args:
        cpus: CPU cores to offer; None: those of the machine. Of effect only where Ray is started here.
        slots: pool name -> number of slots, declared as the custom resources of `slot_resource`.
        resources: further custom resources, where Ray is started here.
        object_store_gb: size of the shared object store, in GB (1e9 bytes), where Ray is started here.
        dashboard: whether Ray's dashboard runs too, where Ray is started here. Ray Train needs it (its cleaner of
            placement groups asks the dashboard's API); without it a dozen processes fewer start.

    Raises:
        ValueError: `RAY_ADDRESS` is no address, or other users can read the cluster's token.
        ConnectionError: `RAY_ADDRESS` is set and no cluster answers there.
        RuntimeError: Ray does not start on this machine.
    """
    if ray.is_initialized():  # a caller further up owns the connection
        yield _session(local=False)
        return
    if JOINS_CLUSTER:
        check_address(os.environ["RAY_ADDRESS"])
    with private_token(joins=JOINS_CLUSTER):
        if JOINS_CLUSTER:
            _join()
        else:
            declared = {slot_resource(pool): float(count) for pool, count in (slots or {}).items()}
            _start(cpus or machine_cpus(), {**(resources or {}), **declared}, object_store_gb, dashboard=dashboard)
        try:
            yield _session(local=not JOINS_CLUSTER)
        finally:
            ray.shutdown()


def _join() -> None:
    """Join the cluster of `RAY_ADDRESS`."""
    ray.init(
        log_to_driver=False,
        logging_level=logging.ERROR,
        runtime_env={"py_modules": [str(ROOT / name) for name in PACKAGES]},
    )


def _start(cpus: int, resources: Mapping[str, float], object_store_gb: float, *, dashboard: bool) -> None:
    """Start Ray on this machine."""
    check_machine()
    port = free_port()
    os.environ["RAY_API_SERVER_ADDRESS"] = f"http://127.0.0.1:{port}"
    try:
        ray.init(
            address="local",
            num_cpus=cpus,
            resources=dict(resources),
            object_store_memory=int(object_store_gb * 1e9),
            include_dashboard=dashboard,
            dashboard_host="127.0.0.1",
            dashboard_port=port,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _temp_dir=session_folder(),
            runtime_env={"env_vars": {"PYTHONPATH": _python_path()}},
        )
    except Exception as error:
        ray.shutdown()
        if type(error) is not Exception:
            raise
        # Its servers had 30 s, which Ray says with a bare Exception.
        raise RuntimeError(
            f"Ray did not start: {' '.join(str(error).split())} If this machine is very busy, try again later"
        ) from error


def _session(*, local: bool) -> Session:
    total = ray.cluster_resources()
    return Session(local=local, cpus=total.get("CPU", 0.0), gpus=total.get("GPU", 0.0), resources=total)


def _python_path() -> str:
    """The workers import the packages from where this process does, installed or not."""
    before = os.environ.get("PYTHONPATH")
    return os.pathsep.join([str(ROOT), before] if before else [str(ROOT)])


def free_port() -> int:
    """A TCP port that nothing listens on now, on loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
