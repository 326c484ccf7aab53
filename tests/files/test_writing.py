"""Files in one step: whole or absent, no litter, nothing written through a link."""

import errno
import os
import signal
import stat
import subprocess
import sys
import time

import pytest

import dynmech as dm
from dynmech import files
from solvers.files import write as write_whole
from tests.helpers import ROOT


def names(folder):
    return sorted(x.name for x in folder.iterdir())


def full(monkeypatch):
    """No space is left from here on."""

    def refuse(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", refuse)


def test_a_file_is_written_with_its_folders_and_replaced(tmp_path):
    place = tmp_path / "new" / "folder" / "file"
    files.write(place, "first ", b"part")
    assert place.read_bytes() == b"first part"
    place.chmod(0o600)
    files.write(place, "é")
    assert place.read_bytes() == "é".encode()
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    assert names(place.parent) == ["file"]


def test_a_full_disk_changes_nothing_and_leaves_nothing(tmp_path, monkeypatch):
    place = tmp_path / "file"
    files.write(place, "old")
    full(monkeypatch)
    with pytest.raises(dm.InvalidArgument, match="No space left"):
        files.write(place, "new")
    with pytest.raises(dm.InvalidArgument, match=r"No space left.*make room"):
        files.write(tmp_path / "new" / "folder" / "file", "new")
    assert names(tmp_path) == ["file"]
    assert place.read_text() == "old"


@pytest.mark.parametrize("dangling", [False, True])
def test_nothing_is_written_through_a_link(tmp_path, dangling):
    victim, place = tmp_path / "victim", tmp_path / "file"
    if not dangling:
        victim.write_text("somebody else's")
    place.symlink_to(victim)
    with pytest.raises(dm.InvalidArgument, match="symbolic link"):
        files.write(place, "mine")
    assert place.is_symlink()
    assert names(tmp_path) == (["file"] if dangling else ["file", "victim"])
    assert dangling or victim.read_text() == "somebody else's"


def test_places_that_are_no_file_are_refused(tmp_path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "kept").write_text("read only")
    (tmp_path / "kept").chmod(0o444)
    for name, why in (("folder", "folder"), ("pipe", "ordinary"), ("kept", "leave to write")):
        with pytest.raises(dm.InvalidArgument, match=why):
            files.write(tmp_path / name, "x")
    with pytest.raises(dm.InvalidArgument, match=r"write\(path=...\)"):
        files.write(tmp_path / "kept" / "below", "x")
    for path in ("", "a\0b"):
        with pytest.raises(dm.InvalidArgument, match="be a path"):
            files.write(path, "x")
    assert (tmp_path / "kept").read_text() == "read only"
    assert names(tmp_path) == ["folder", "kept", "pipe"]


def test_a_fresh_file_never_replaces_one(tmp_path):
    write_whole(tmp_path / "file", b"first", fresh=True)
    with pytest.raises(FileExistsError):
        write_whole(tmp_path / "file", b"second", fresh=True)
    assert names(tmp_path) == ["file"]
    assert (tmp_path / "file").read_bytes() == b"first"


WAITS = """
import os, sys, time
import solvers.files as files
os.fsync = lambda handle: (print("drafted", flush=True), time.sleep(60))
files.write(sys.argv[1], b"never")
"""


def test_drafts_of_killed_writers_are_swept_and_those_of_living_ones_are_not(tmp_path):
    command = [sys.executable, "-c", WAITS, str(tmp_path / "file")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as writer:
        try:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"drafted\n"
            files.write(tmp_path / "other", "x")
            assert len(names(tmp_path)) == 2  # its draft is there, and locked
        finally:
            writer.send_signal(signal.SIGKILL)
    time.sleep(0.05)
    files.write(tmp_path / "other", "y")
    assert names(tmp_path) == ["other"]
