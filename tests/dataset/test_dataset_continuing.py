"""A call that is repeated keeps finished shards, and draws again what is gone or damaged."""

import pytest

from dataset.plans import ALWAYS, files, known_plan, write
from energyql.dataset.destination import Folder


class TestContinuing:
    def test_finished_shards_are_kept(self, whole, copy):
        before = files(copy)
        times = {path: path.stat().st_mtime_ns for path in copy.rglob("*")}
        written = write(known_plan(**ALWAYS), copy)
        assert (written.kept, written.shards) == (4, whole[1].shards)
        assert files(copy) == before
        assert {path: path.stat().st_mtime_ns for path in copy.rglob("*")} == times

    @pytest.mark.parametrize("damage", ["gone", "short", "flipped"])
    def test_a_damaged_shard_is_drawn_again(self, whole, copy, damage):
        path = copy / "shards" / "000002.tar"
        data = bytearray(path.read_bytes())
        data[700] ^= 1
        path.unlink() if damage == "gone" else path.write_bytes(data[:900] if damage == "short" else data)
        assert write(known_plan(**ALWAYS), copy).kept == 3
        assert files(copy) == files(whole[0])

    @pytest.mark.parametrize("name", ["manifest.jsonl", "index.parquet", "README.md"])
    def test_what_describes_the_shards_is_written_again(self, whole, copy, name):
        (copy / name).unlink()
        write(known_plan(**ALWAYS), copy)
        assert files(copy) == files(whole[0])

    def test_a_damaged_line_of_the_manifest_is_one_shard(self, whole, copy):
        path = copy / "manifest.jsonl"
        first, *others = path.read_text().splitlines()
        path.write_text("\n".join([first[:40], "[]", "3", *others]))
        assert write(known_plan(**ALWAYS), copy).kept == 3
        assert files(copy) == files(whole[0])

    @pytest.mark.parametrize("stop", range(1, 17))
    def test_every_moment(self, whole, tmp_path, monkeypatch, stop):
        """Writing ends at the `stop`-th file, before it is there; the same call then continues."""

        class Stopped(Exception):
            pass

        count, original = 0, Folder.writing

        def failing(self, name):
            nonlocal count
            count += 1
            if count == stop:
                raise Stopped
            return original(self, name)

        with monkeypatch.context() as patch:
            patch.setattr(Folder, "writing", failing)
            with pytest.raises(Stopped):
                write(known_plan(**ALWAYS), tmp_path / "out")
        written = write(known_plan(**ALWAYS), tmp_path / "out")
        assert written.kept == min(4, max(0, stop - 2) // 3)
        assert files(tmp_path / "out") == files(whole[0])
