"""The same download in an object store, served by moto on this machine."""

import shutil

import numpy as np
import pytest

from data_prep.find.cbis_ddsm import find_samples
from data_prep.phantom.patients import write_phantoms
from data_prep.read.dicom import read_image
from data_prep.schema import BuildSettings, ReadError
from tests.data_prep.trees import SMALL_TREE, mask_pixels


@pytest.fixture
def bucket(monkeypatch):
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    client.create_bucket(Bucket="films")
    yield client
    server.stop()


@pytest.mark.slow
def test_download_in_an_object_store_is_found_and_read_as_on_a_disk(bucket, tmp_path):
    write_phantoms(SMALL_TREE, tmp_path / "tree")
    shutil.rmtree(next((tmp_path / "tree" / "CBIS-DDSM").glob("*_LEFT_CC")))
    for path in sorted(p for p in (tmp_path / "tree").rglob("*") if p.is_file()):
        bucket.upload_file(str(path), "films", path.relative_to(tmp_path).as_posix())
    local = find_samples(BuildSettings(source="cbis_ddsm", root=str(tmp_path / "tree")))
    remote = find_samples(
        BuildSettings(source="cbis_ddsm", root="s3://films/tree"), index_cache=tmp_path / "index.parquet"
    )
    assert [s.sample_id for s in remote.samples] == [s.sample_id for s in local.samples]
    assert [r.sample_id for r in remote.rejected] == [r.sample_id for r in local.rejected]
    for here, there in zip(local.samples, remote.samples, strict=True):
        assert there.image.startswith("s3://films/tree/CBIS-DDSM/")
        assert np.array_equal(read_image(there.image), read_image(here.image))
        assert np.array_equal(mask_pixels(there.lesions[0].mask), mask_pixels(here.lesions[0].mask))
    with pytest.raises(ReadError, match="unreadable: cannot be opened"):
        read_image("s3://films/tree/absent.dcm")
