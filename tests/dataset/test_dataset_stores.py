"""Object stores: a real S3 server process on the loopback, which is killed, overloaded and not there."""

import sys
import threading
import time

import pytest
from needed import needed

from dataset.plans import files, known_plan, write
from energyql.dataset import destination, run
from energyql.errors import ArgumentError, DataError

needed("s3fs")
needed("moto")
from dataset.store import KEYS, served  # noqa: E402


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with served(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture
def bucket(server, monkeypatch):
    """A new bucket of a server that runs; the library finds it as it finds any other."""
    import fsspec
    import s3fs

    for name, value in (KEYS | {"AWS_ENDPOINT_URL": server.address}).items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    name = f"bucket-{time.time_ns()}"
    system = fsspec.filesystem("s3", use_listings_cache=False)
    system.mkdir(name)
    yield name, system
    server.faults.unlink(missing_ok=True)


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    out = tmp_path_factory.mktemp("local") / "out"
    write(known_plan(), out)
    return files(out)


def stored(bucket, tmp_path):
    """SHA-256 of everything in the data set of a bucket; the manifest there has marks besides."""
    name, system = bucket
    system.get(f"{name}/out/", f"{tmp_path}/got/", recursive=True)
    return {key: value for key, value in files(tmp_path / "got").items() if key != "manifest.jsonl"}


def same(local):
    return {key: value for key, value in local.items() if key != "manifest.jsonl"}


def test_a_store_gets_what_a_folder_gets(bucket, local, tmp_path):
    out = f"s3://{bucket[0]}/out"
    written = write(known_plan(), out)
    assert stored(bucket, tmp_path) == same(local)
    assert all(shard.mark for shard in written.shards)
    assert write(known_plan(), out).kept == 4


def test_a_shard_that_was_changed_in_the_store_is_drawn_again(bucket, local, tmp_path):
    name, system = bucket
    out = f"s3://{name}/out"
    write(known_plan(), out)
    data = bytearray(system.cat(f"{name}/out/shards/000002.tar"))
    data[700] ^= 1
    system.pipe(f"{name}/out/shards/000002.tar", bytes(data))
    system.rm(f"{name}/out/shards/000000.tar")
    assert write(known_plan(), out).kept == 2
    assert stored(bucket, tmp_path) == same(local)


def test_another_plan_in_the_store_is_refused(bucket):
    write(known_plan(), f"s3://{bucket[0]}/out")
    with pytest.raises(DataError, match="holds a data set of another plan: seed 5, not 6"):
        write(known_plan(seed=6), f"s3://{bucket[0]}/out")


@pytest.mark.parametrize(
    "headers",
    [{"ServerSideEncryption": "AES256"}, {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "alias/mine"}],
    ids=["AES256", "KMS"],
)
def test_a_store_encrypts(bucket, local, tmp_path, monkeypatch, headers):
    """The headers come from the configuration of fsspec, and go with every upload."""
    import s3fs
    from fsspec.config import conf

    name, system = bucket
    monkeypatch.setitem(conf, "s3", {"s3_additional_kwargs": headers})
    s3fs.S3FileSystem.clear_instance_cache()
    write(known_plan(), f"s3://{name}/out")
    assert write(known_plan(), f"s3://{name}/out").kept == 4
    facts = [
        system.call_s3("head_object", Bucket=name, Key=path[len(name) + 1 :]) for path in system.find(f"{name}/out")
    ]
    assert [{key: fact.get(key) for key in headers} for fact in facts] == len(local) * [headers]
    assert stored(bucket, tmp_path) == same(local)


def test_an_overloaded_store_is_asked_again(bucket, server, local, tmp_path, monkeypatch):
    import s3fs

    monkeypatch.setattr(destination, "_FIRST_PAUSE", 0.05)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    s3fs.S3FileSystem.clear_instance_cache()
    server.faults.write_text("8")  # more than the library asks again by itself
    write(known_plan(), f"s3://{bucket[0]}/out")
    assert server.faults.read_text() == "0"
    assert stored(bucket, tmp_path) == same(local)


@pytest.mark.slow
def test_a_killed_server_is_waited_for(bucket, server, local, tmp_path, monkeypatch):
    monkeypatch.setattr(destination, "_FIRST_PAUSE", 0.05)
    restarts = []

    def kill(name, fraction):
        """Kill the server twice while a shard is drawn; it is back a moment later, with all that it had."""
        if fraction > len(restarts) / 2 and len(restarts) < 2:
            server.kill()
            restarts.append(threading.Timer(0.3, server.start))
            restarts[-1].start()

    written = write(known_plan(), f"s3://{bucket[0]}/out", progress=kill)
    for restart in restarts:
        restart.join()
    assert (written.kept, len(restarts)) == (0, 2)
    assert stored(bucket, tmp_path) == same(local)


def test_a_missing_bucket_is_named_at_once(bucket):
    started = time.monotonic()
    with pytest.raises(ArgumentError, match="s3://nobody-has-this/out is not there") as caught:
        write(known_plan(), "s3://nobody-has-this/out")
    assert "make the bucket first" in caught.value.hint
    assert time.monotonic() - started < destination.PATIENCE / 4


def test_a_wrong_name_of_a_bucket_is_refused_at_once(bucket):
    with pytest.raises(ArgumentError, match="s3://A_/out"):
        write(known_plan(), "s3://A_/out")


def test_a_store_that_never_answers_ends_in_a_message(bucket, monkeypatch):
    import s3fs

    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")  # of botocore, whose pauses are longer than our patience here
    monkeypatch.setattr(destination, "PATIENCE", 1.0)
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(ArgumentError, match="has not answered for 1 seconds") as caught:
        write(known_plan(), "s3://bucket/out")
    assert "the same command then continues" in caught.value.hint


def test_a_missing_library_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(ArgumentError, match="gs://bucket/out needs a library that is not installed") as caught:
        write(known_plan(), "gs://bucket/out")
    assert caught.value.hint == 'pip install "gcsfs>=2024.2"'


def test_an_unknown_kind_of_store_is_refused():
    with pytest.raises(ArgumentError, match="cannot write ssl://bucket/out: .*ssl"):
        write(known_plan(), "ssl://bucket/out")


def test_file_addresses_are_folders(local, tmp_path):
    write(known_plan(), f"file://{tmp_path}/out")
    assert files(tmp_path / "out") == local


def test_other_stores_of_fsspec(local):
    """A store without marks: shards are read to check them."""
    import fsspec

    assert write(known_plan(), "memory://energyql/out").kept == 0
    system = fsspec.filesystem("memory")
    assert write(known_plan(), "memory://energyql/out").kept == 4
    data = bytearray(system.cat("/energyql/out/shards/000001.tar"))
    data[700] ^= 1
    system.pipe("/energyql/out/shards/000001.tar", bytes(data))
    assert write(known_plan(), "memory://energyql/out").kept == 3
    system.rm("/energyql", recursive=True)


@pytest.mark.parametrize("moment", ["records", "index"])
def test_a_second_run_that_is_overtaken_does_not_fail(local, monkeypatch, moment):
    """The first one removes the parts of the finished set just before the second one reads them."""
    import fsspec

    out, read, asked = "memory://energyql/out", destination.Store.read, []

    def overtaken(self, names):
        kind = "json" if moment == "records" else "parquet"
        if any(name.startswith("parts/") and name.endswith(kind) for name in names):
            asked.append(names)
            if len(asked) == 1:
                write(known_plan(), out)
        return read(self, names)

    with monkeypatch.context() as interrupted:
        interrupted.setattr(run, "finish", lambda *arguments: None)
        write(known_plan(), out)  # all but the end
    monkeypatch.setattr(destination.Store, "read", overtaken)
    assert len(write(known_plan(), out).shards) == 4
    system = fsspec.filesystem("memory")
    assert sorted(path.removeprefix("/energyql/out/") for path in system.find("/energyql/out")) == sorted(local)
    system.rm("/energyql", recursive=True)


def test_missing_objects_do_not_keep_others():
    """The store in memory removes one by one, and stops at a missing object."""
    store = destination.Store("memory://energyql/missing")
    for name in ("a.tar", "c.tar"):
        with store.writing(name) as path:
            path.write_bytes(b"a")
    store.remove(["a.tar", "b.tar", "c.tar"])
    assert store.sizes() == {}


def test_a_second_plan_in_a_store_is_seen_in_the_end(monkeypatch):
    import fsspec

    out, begin, write_plan, begun = "memory://energyql/out", run.begin, write, []

    def begin_both(*arguments, write):
        begin(*arguments, write=write)
        if write and not begun:
            begun.append(arguments)
            fsspec.filesystem("memory").rm("/energyql/out/plan.json")
            write_plan(known_plan(seed=6), out)

    monkeypatch.setattr(run, "begin", begin_both)
    with pytest.raises(DataError, match="holds a data set of another plan: seed 6, not 5"):
        write(known_plan(), out)
    fsspec.filesystem("memory").rm("/energyql", recursive=True)


class TestUploadsThatFail:
    """A store of fsspec that keeps a half of a file: no run takes it for whole, and the same command continues."""

    @pytest.fixture
    def store(self, monkeypatch):
        """The store in memory; what its attribute `fault` does follows each upload, with the number of the upload."""
        import fsspec
        from fsspec.implementations.memory import MemoryFileSystem

        count, put = 0, MemoryFileSystem.put_file

        def uploading(self, source, path, **settings):
            nonlocal count
            count += 1
            put(self, source, path, **settings)
            if fault := vars(store).get("fault"):
                fault(self, path, count)

        monkeypatch.setattr(destination, "_FIRST_PAUSE", 0.001)
        monkeypatch.setattr(MemoryFileSystem, "put_file", uploading)
        store = fsspec.filesystem("memory")
        yield store
        vars(store).pop("fault", None)
        store.rm("/energyql", recursive=True)

    @staticmethod
    def halve(system, path):
        data = system.cat(path)
        system.pipe(path, data[: len(data) // 2])

    def digests(self, store):
        return {path.removeprefix("/energyql/out/"): store.cat(path) for path in store.find("/energyql/out")}

    @pytest.mark.parametrize("kept", ["half", "nothing"])
    def test_a_store_that_says_it_has_a_whole_file(self, store, local, kept):
        whole = write(known_plan(), "memory://energyql/out")
        expected = self.digests(store)
        store.rm("/energyql", recursive=True)

        def fault(system, path, count):
            if count % 2:  # each file once
                self.halve(system, path) if kept == "half" else system.rm(path)

        store.fault = fault
        assert write(known_plan(), "memory://energyql/out").shards == whole.shards
        assert self.digests(store) == expected

    @pytest.mark.parametrize("stop", range(1, 17))
    def test_a_process_that_is_killed_while_it_uploads(self, store, local, stop):
        class Killed(BaseException):
            pass

        def fault(system, path, count):
            if count == stop:
                self.halve(system, path)
                raise Killed

        store.fault = fault
        with pytest.raises(Killed):
            write(known_plan(), "memory://energyql/out")
        assert write(known_plan(), "memory://energyql/out").kept == min(4, max(0, stop - 2) // 3)
        assert sorted(self.digests(store)) == sorted(local)

    @pytest.mark.parametrize("text", [b"", b'{\n  "fing'])
    def test_half_a_plan_alone_is_that_of_the_same_plan(self, store, local, text):
        store.pipe("/energyql/out/plan.json", text)
        write(known_plan(), "memory://energyql/out")
        assert sorted(self.digests(store)) == sorted(local)

    @pytest.mark.parametrize(
        "others", [{"plan.json": b'{\n  "mine": 3}'}, {"plan.json": b'{\n  "fing', "mine.txt": b"mine"}]
    )
    def test_half_of_another_plan_is_refused(self, store, others):
        store.pipe({f"/energyql/out/{name}": text for name, text in others.items()})
        with pytest.raises(DataError, match=r"plan\.json in .* is damaged"):
            write(known_plan(), "memory://energyql/out")

    def test_a_refusal_without_a_number_is_not_repeated(self, store, monkeypatch):
        """As gcsfs reports the code 403."""
        monkeypatch.setattr(destination, "PATIENCE", 20.0)

        def fault(system, path, count):
            raise OSError("Forbidden: bucket/out\nno permission")

        store.fault = fault
        started = time.monotonic()
        with pytest.raises(ArgumentError, match="cannot write memory://energyql/out: Forbidden"):
            write(known_plan(), "memory://energyql/out")
        assert time.monotonic() - started < destination.PATIENCE / 4

    def test_a_copied_object_is_kept(self, bucket):
        """Its ETag is another, as after it is encrypted by another key, and its content the same."""
        name, system = bucket
        write(known_plan(), f"s3://{name}/out")
        path = f"{name}/out/shards/000001.tar"
        before, data = system.info(path)["ETag"], system.cat(path)
        part = system.call_s3("create_multipart_upload", Bucket=name, Key="out/shards/000001.tar")
        place = {"Bucket": name, "Key": "out/shards/000001.tar", "UploadId": part["UploadId"]}
        sent = system.call_s3("upload_part", **place, PartNumber=1, Body=data)
        parts = {"Parts": [{"PartNumber": 1, "ETag": sent["ETag"]}]}
        system.call_s3("complete_multipart_upload", **place, MultipartUpload=parts)
        assert system.info(path)["ETag"] != before
        assert write(known_plan(), f"s3://{name}/out").kept == 4
