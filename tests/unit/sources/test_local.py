import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from ckptdiff.sources.local import (
    NotRegular,
    Unreadable,
    identity,
    open_regular,
    read_document,
    read_range,
)


def refusal(path):
    with pytest.raises(Unreadable) as caught, open_regular(path):
        pass
    return caught.value


def test_a_regular_file_is_opened_with_its_identity_and_closed(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    with open_regular(str(path)) as file:
        status = path.stat()
        assert file.identity == identity(file.fd)
        assert (file.identity.inode, file.identity.size) == (status.st_ino, 10)
        assert read_range(file.fd, 2, 3) == b"234"
        assert read_range(file.fd, 8, 100) == b"89"
        assert read_range(file.fd, 50, 1) == b""
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(file.fd)


def test_a_link_to_a_regular_file_is_followed(tmp_path):
    (tmp_path / "blob").write_bytes(b"x")
    (tmp_path / "link").symlink_to("blob")
    assert read_document(tmp_path / "link") == b"x"


@pytest.mark.timeout(10)
def test_a_fifo_does_not_wait_for_a_writer(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    error = refusal(tmp_path / "fifo")
    assert isinstance(error, NotRegular)
    assert error.reason == "a fifo"


def test_a_directory_is_not_regular(tmp_path):
    error = refusal(tmp_path)
    assert isinstance(error, NotRegular)
    assert error.reason == "a directory"


def test_a_device_is_not_regular():
    error = refusal("/dev/zero")
    assert isinstance(error, NotRegular)
    assert error.reason == "a character device"


def test_a_socket_is_not_regular(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the whole path of a socket has to be short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        assert isinstance(refusal("socket"), NotRegular)


def test_a_symlink_loop_is_unreadable(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    error = refusal(tmp_path / "a")
    assert not isinstance(error, NotRegular)
    assert error.reason == "symlink loop"


def test_a_dangling_link_and_an_absent_file_are_unreadable(tmp_path):
    (tmp_path / "link").symlink_to("nothing")
    assert "vanished" in refusal(tmp_path / "link").reason
    assert "vanished" in refusal(tmp_path / "nothing").reason


@pytest.mark.parametrize(
    ("name", "reason"),
    [("a\0b", "file name"), ("\ud800", "file name"), ("n" * 300, "too long")],
)
def test_impossible_names_are_unreadable(tmp_path, name, reason):
    assert reason in refusal(tmp_path / name).reason


def test_a_file_below_a_file_is_unreadable(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    assert refusal(tmp_path / "file" / "below").reason == "a part of its path is not a directory"


SHOW_REASON = """
import os, sys
sys.path[:0] = sys.argv[2:]
from ckptdiff.sources.local import Unreadable, open_regular
descriptor = int(sys.argv[1])
os.fchdir(descriptor)
try:
    with open_regular("secret"):
        print("opened")
except Unreadable as error:
    print(type(error).__name__, error.reason)
"""


def test_missing_permission_is_unreadable(tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(b"x")
    secret.chmod(0)
    command = [sys.executable, "-c", SHOW_REASON]
    if os.geteuid() == 0:  # nothing is forbidden to root
        command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *command]
    # The directory is handed over open: others may not pass through its parents.
    tmp_path.chmod(0o755)
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        root = Path(__file__).resolve().parents[3]
        shown = subprocess.run(
            [*command, str(folder), str(root)],
            pass_fds=[folder],
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        os.close(folder)
    assert shown.stdout == "Unreadable permission denied\n", shown.stderr


def test_an_io_error_is_unreadable(tmp_path):
    with pytest.raises(Unreadable):
        read_range(-1, 0, 1)
    with pytest.raises(Unreadable):
        identity(-1)


def test_a_document_up_to_the_limit_is_read_whole(tmp_path):
    path = tmp_path / "config.json"
    path.write_bytes(b"x" * 100)
    assert read_document(path, limit=100) == b"x" * 100
    with pytest.raises(Unreadable, match="larger than 99 bytes"):
        read_document(path, limit=99)


def test_an_empty_document_is_empty(tmp_path):
    (tmp_path / "config.json").write_bytes(b"")
    assert read_document(tmp_path / "config.json") == b""


@pytest.mark.parametrize("change", [b"longer than before", b""])
def test_a_document_that_changes_while_it_is_read_is_unreadable(tmp_path, monkeypatch, change):
    path = tmp_path / "config.json"
    path.write_bytes(b"before")
    pread = os.pread

    def change_then_read(fd, length, offset):
        path.write_bytes(change)
        return pread(fd, length, offset)

    monkeypatch.setattr(os, "pread", change_then_read)
    with pytest.raises(Unreadable, match="changed while it was read"):
        read_document(path)
