"""Films of an object store, fetched while the film before is computed: a core need not wait for the network.

A disk needs none of it: the system reads ahead by itself, and what is read once more costs more than it brings.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from data_prep.read.files import is_remote, read_all
from data_prep.schema import ReadError, Sample

Fetched = Mapping[str, bytes]
"""URI of a file -> its content, of the files that could be fetched."""


def fetch_ahead(samples: Sequence[Sample]) -> Iterator[tuple[Sample, Fetched]]:
    """The samples in order, each with the content of its remote files; the next one's are on their way meanwhile.

    Raises:
        OSError: a store does not answer.
    """
    if not any(is_remote(path) for sample in samples for path in _files(sample)):
        yield from ((sample, {}) for sample in samples)
        return
    with ThreadPoolExecutor(1) as thread:
        coming: Future[Fetched] | None = thread.submit(_fetch, samples[0])
        for number, sample in enumerate(samples):
            assert coming is not None
            fetched = coming.result()
            more = number + 1 < len(samples)
            coming = thread.submit(_fetch, samples[number + 1]) if more else None
            yield sample, fetched


def _fetch(sample: Sample) -> Fetched:
    found = {}
    for path in _files(sample):
        if is_remote(path):
            try:
                found[path] = read_all(path)
            except ReadError:  # told of when the file is read
                continue
    return found


def _files(sample: Sample) -> list[str]:
    return [sample.image, *(lesion.mask for lesion in sample.lesions)]
