"""Requests and seconds for the headers of a download in an object store that answers after a while.

    python -m benchmarks.headers                        # 10,239 files, 30 ms a request
    python -m benchmarks.headers --files 500 --delay-ms 10
    python -m benchmarks.headers --driver 100000        # memory of the driver for so many films, simulated

The server is moto in a process of its own. Contenders: `usual` opens a file to see whether it is DICOM and again to
read its header, through pyarrow, in eight threads; `ours` is `data_prep.find.index` in this process.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import os
import pickle
import resource
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pydicom
from pyarrow import fs

from cluster.storage import Folder
from data_prep.find.index import build_index
from data_prep.find.listing import FileRecord, list_files
from data_prep.find.views import join_views
from data_prep.plan import plan, source_sha256
from data_prep.schema import BuildSettings, Lesion, Sample
from data_prep.split import assign_splits

BUCKET = "films"
KEYS = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": "us-east-1"}


def serve(port: Any, requests: Any, delay_s: float) -> None:
    """A store whose every answer takes `delay_s`; runs until it is ended."""
    from moto.server import ThreadedMotoServer
    from werkzeug.serving import WSGIRequestHandler

    def log_request(self: Any, code: Any = "-", size: Any = "-") -> None:
        with requests.get_lock():
            requests.value += 1
        time.sleep(delay_s if self.command in ("GET", "HEAD") else 0)

    WSGIRequestHandler.log_request = log_request  # type: ignore[method-assign]
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    port.value = server.get_host_and_port()[1]
    time.sleep(1e6)


def fill(endpoint: str, count: int) -> None:
    """Upload small films, each of a header as CBIS-DDSM has it."""
    import boto3

    client = boto3.client("s3", endpoint_url=endpoint)
    client.create_bucket(Bucket=BUCKET)
    content = _film()
    with ThreadPoolExecutor(8) as threads:
        keys = (f"tree/Mass-Training_P_{n:05d}_LEFT_CC/1.2/3.4/1-1.dcm" for n in range(count))
        list(threads.map(lambda key: client.put_object(Bucket=BUCKET, Key=key, Body=content), keys))


def _film() -> bytes:
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ImplicitVRLittleEndian, SecondaryCaptureImageStorage

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = SecondaryCaptureImageStorage, "1.2.3"
    meta.TransferSyntaxUID = ImplicitVRLittleEndian
    data = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = SecondaryCaptureImageStorage, "1.2.3"
    data.PatientID, data.SeriesInstanceUID = "Mass-Training_P_00001_LEFT_CC", "1.2.5"
    data.SeriesDescription = "full mammogram images"
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 0
    data.Rows = data.Columns = 128
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit = 15
    data.PixelData = np.zeros((128, 128), np.uint16).tobytes()
    stream = io.BytesIO()
    data.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def usual(files: list[FileRecord]) -> int:
    """Headers as one would read them first; how many were."""
    store, base = fs.FileSystem.from_uri(f"s3://{BUCKET}")

    def read(file: FileRecord) -> str:
        path = f"{base}/{file.path.removeprefix(f's3://{BUCKET}/')}"
        with store.open_input_file(path) as stream:
            if stream.read(132)[128:] != b"DICM":
                return ""
        with store.open_input_file(path) as stream:
            head = io.BytesIO(stream.read(16 * 1024))
        return str(pydicom.dcmread(head, stop_before_pixels=True).PatientID)

    with ThreadPoolExecutor(8) as threads:
        return sum(map(bool, threads.map(read, files)))


def ours(files: list[FileRecord]) -> int:
    """Headers as a build reads them."""
    return sum(not record.fault for record in build_index(files))


def measure_store(count: int, delay_s: float) -> bool:
    """Print the table; whether ours needs at most 1.2 requests a file."""
    context = multiprocessing.get_context("spawn")
    port, requests = context.Value("i", 0), context.Value("i", 0)
    process = context.Process(target=serve, args=(port, requests, delay_s), daemon=True)
    os.environ.update(KEYS, AWS_EC2_METADATA_DISABLED="true")
    process.start()
    while not port.value:
        time.sleep(0.1)
    endpoint = os.environ["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{port.value}"
    try:
        fill(endpoint, count)
        requests.value = 0
        begun = time.perf_counter()
        files, _ = list_files(Folder(f"s3://{BUCKET}/tree"))
        print(f"{len(files)} files listed: {requests.value} requests, {time.perf_counter() - begun:.1f} s")
        print("way       requests/file   seconds")
        per_file = {}
        ways: dict[str, Callable[[list[FileRecord]], int]] = {"usual": usual, "ours": ours}
        for name, way in ways.items():
            requests.value, begun = 0, time.perf_counter()
            assert way(files) == count
            per_file[name] = requests.value / count
            print(f"{name:9s} {per_file[name]:13.2f} {time.perf_counter() - begun:9.1f}", flush=True)
        return per_file["ours"] <= 1.2
    finally:
        process.terminate()


def measure_driver(films: int) -> bool:
    """Find, split and plan so many films with two lesions each, simulated; whether it stays under 1 GB."""
    begun, before = time.perf_counter(), _memory_gb()
    records = [_record(number, part) for number in range(films) for part in ("film", "mask_1", "mask_2")]
    samples = [_sample(number) for number in range(films)]
    print(f"records and samples: {time.perf_counter() - begun:.1f} s, {_memory_gb():.2f} GB")
    joined, _ = join_views(samples, {record.path: record for record in records})
    split, left_out = assign_splits(joined, BuildSettings())
    sizes = {record.path: record.bytes for record in records}
    source = source_sha256(split, left_out, "/data", sizes)
    tasks = plan(split, BuildSettings(), source)
    sent = sum(len(pickle.dumps(task)) for task in tasks)
    peak = _memory_gb()
    print(f"{films} films, {len(tasks)} tasks ({sent / 1e6:.0f} MB): {time.perf_counter() - begun:.1f} s")
    print(f"driver: {peak:.2f} GB at most, {peak - before:.2f} of them for the films")
    return peak < 1.0


def _record(number: int, part: str) -> FileRecord:
    name = f"Mass-Training_P_{number // 2:06d}_LEFT_{'CC' if number % 2 else 'MLO'}"
    uid = f"1.3.6.1.4.1.9590.100.1.2.{number:038d}"
    relative = f"CBIS-DDSM/{name}/{uid}/{uid}/{part}.dcm"
    sizes = {"bytes": 25_000_000, "rows": 4600, "columns": 2700, "bits": 16, "mtime_ns": number}
    return FileRecord(path=f"/data/{relative}", relative=relative, name=name, series=f"{number:016x}", **sizes)


def _sample(number: int) -> Sample:
    film = _record(number, "film")
    lesions = tuple(
        Lesion(lesion_id=str(k), mask=_record(number, f"mask_{k}").path, kind="mass", pathology="BENIGN", extent=0.01)
        for k in (1, 2)
    )
    return Sample(
        sample_id=film.name,
        patient_id=f"P_{number // 2:06d}",
        image=film.path,
        lesions=lesions,
        side="LEFT",
        view="CC" if number % 2 else "MLO",
        kind="mass",
        pathology="BENIGN",
        density=2,
        split="train" if number // 2 % 5 else "test",
    )


def _memory_gb() -> float:
    """The most memory that this process has had, in GB (1e9 bytes)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def main(words: Iterable[str] | None = None) -> int:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--files", type=int, default=10_239)
    ask.add_argument("--delay-ms", type=float, default=30.0, help="added to each request")
    ask.add_argument("--driver", type=int, metavar="FILMS", help="measure the driver's memory instead")
    args = ask.parse_args(None if words is None else list(words))
    fine = measure_driver(args.driver) if args.driver else measure_store(args.files, args.delay_ms / 1e3)
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
