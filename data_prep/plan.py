"""What a build will do, decided before any pixel is read: what the source is, which sample goes into which shard."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

from data_prep.schema import SCHEMA_VERSION, SPLITS, BuildSettings, Rejected, Sample
from data_prep.write import TASK, ShardTask

TOLD = [f.name for f in fields(Sample) if f.name not in ("image", "lesions")]
"""What a source tells of a sample beside its files."""


def plan(samples: Sequence[Sample], settings: BuildSettings, source: str) -> list[ShardTask]:
    """The shards of a build: each split's samples, sorted by id, in equal parts of at most `samples_per_shard`.

    Args:
        samples: with their splits assigned.
        settings: of the build.
        source: `source_sha256` of the source.

    Returns:
        The tasks in the order of their files.
    """
    tasks = []
    for split in SPLITS:
        chosen = sorted((s for s in samples if s.split == split), key=lambda s: s.sample_id)
        shards = -(-len(chosen) // settings.samples_per_shard)
        edges = [len(chosen) * k // shards for k in range(shards + 1)] if shards else []
        for number, (begin, end) in enumerate(pairwise(edges)):
            tasks.append(_task(f"{split}/{number:05d}.parquet", tuple(chosen[begin:end]), settings, source))
    return tasks


def source_sha256(
    samples: Sequence[Sample], rejected: Sequence[Rejected], root: str | None, sizes: Mapping[str, int]
) -> str:
    """The identity of a source: every sample and reject as found, with the size of each file, paths below `root`.

    Args:
        samples: with their splits.
        rejected: what was left out.
        root: of the source.
        sizes: path -> bytes of the source's files, as they were listed.
    """
    digest = hashlib.sha256()
    for sample in sorted(samples, key=lambda s: s.sample_id):
        lesions = [
            [_below(lesion.mask, root), sizes[lesion.mask], lesion.lesion_id, lesion.kind, lesion.pathology]
            for lesion in sample.lesions
        ]
        said = [getattr(sample, name) for name in TOLD]
        film = [_below(sample.image, root), sizes[sample.image], lesions, *said]
        digest.update(json.dumps(film).encode() + b"\n")
    for left_out in sorted((_below(item.path, root), item.sample_id, item.reason.split(":")[0]) for item in rejected):
        digest.update(json.dumps(left_out).encode() + b"\n")
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """The packages that shape a shard's bytes."""
    names = ("numpy", "opencv-python-headless", "pyarrow", "pydicom")
    return {"schema": str(SCHEMA_VERSION), **{name: version(name) for name in names}}


def _task(file: str, samples: tuple[Sample, ...], settings: BuildSettings, source: str) -> ShardTask:
    task = ShardTask(file=file, key="", samples=samples, settings=settings)
    decides = TASK.dump_json(task) + json.dumps([source, versions()]).encode()
    return ShardTask(file=file, key=hashlib.sha256(decides).hexdigest(), samples=samples, settings=settings)


def _below(path: str, root: str | None) -> str:
    if root is None:
        return path
    base = root.rstrip("/") if "://" in root else str(Path(root).expanduser().absolute())
    return path.removeprefix(f"{base}/")
