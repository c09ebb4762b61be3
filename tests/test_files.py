import fcntl
import os
import stat

import pytest

from lrensemble.errors import InputError, PoolError
from lrensemble.files import atomic_path, read_json, write_text_atomic


def test_write_makes_folders_and_leaves_nothing_else(tmp_path):
    target = write_text_atomic(tmp_path / "a" / "b.txt", "new")
    assert target.read_text() == "new"
    assert [p.name for p in target.parent.iterdir()] == ["b.txt"]


def test_a_failed_write_keeps_the_old_file(tmp_path):
    target = write_text_atomic(tmp_path / "file", "old")

    def fail():
        with atomic_path(target) as temporary:
            temporary.write_text("half")
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        fail()
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_disk_that_refuses_gives_one_sentence(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(PoolError, match="cannot be written"):
        write_text_atomic(tmp_path / "file" / "below", "text")
    with pytest.raises(PoolError, match="No space left"), atomic_path(tmp_path / "full"):
        raise OSError(28, "No space left on device")


def test_a_folder_or_device_is_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for target in (tmp_path, pipe):
        with pytest.raises(PoolError, match="found a folder or device"):
            write_text_atomic(target, "text")
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_json_that_is_no_json_is_refused_by_name(tmp_path):
    for content in ("", "{", "[" * 100_000):
        (tmp_path / "r.json").write_text(content)
        with pytest.raises(InputError, match=r"r\.json: expected a report \(JSON\), got something else"):
            read_json(tmp_path / "r.json", "a report")
    with pytest.raises(InputError, match="cannot be read"):
        read_json(tmp_path / "none.json", "a report")


def test_files_are_flushed_through_a_handle_for_writing(tmp_path, monkeypatch):
    """Windows refuses to flush what is open for reading only."""
    flushed = []
    monkeypatch.setattr(os, "fsync", lambda handle: flushed.append(fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE))
    write_text_atomic(tmp_path / "file", "text")
    assert flushed == [os.O_RDWR, os.O_RDONLY]  # the file, then its folder
