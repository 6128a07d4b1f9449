"""Files that are written whole: links, devices and permissions stay what they are; folders have one writer."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from macattr.atomic_files import sole_writer, write_atomically


def write(path, content=b"new"):
    write_atomically(path, lambda file: file.write(content))


def test_an_old_file_is_replaced_whole(tmp_path):
    (tmp_path / "a").write_bytes(b"old and long")
    write(tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"new"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("target", ["old", "dangling", "elsewhere"])
def test_a_link_stays_a_link_and_its_target_is_written(tmp_path, target):
    place = {"elsewhere": tmp_path / "folder" / "old"}.get(target, tmp_path / target)
    place.parent.mkdir(exist_ok=True)
    if target != "dangling":
        place.write_bytes(b"old")
    (tmp_path / "link").symlink_to(place)
    write(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert place.read_bytes() == b"new"


def test_a_chain_of_links_is_followed_to_its_end(tmp_path):
    (tmp_path / "b").symlink_to(tmp_path / "c")
    (tmp_path / "a").symlink_to(tmp_path / "b")
    write(tmp_path / "a")
    assert (tmp_path / "c").read_bytes() == b"new"
    assert (tmp_path / "a").is_symlink()
    assert (tmp_path / "b").is_symlink()


def test_a_pipe_is_written_into(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with subprocess.Popen(["cat", tmp_path / "pipe"], stdout=subprocess.PIPE) as reader:
        write(tmp_path / "pipe")
        assert reader.communicate()[0] == b"new"
    assert (tmp_path / "pipe").is_fifo()


def test_a_device_stays_a_device():
    write(Path("/dev/null"))
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_a_full_device_is_an_error_of_one_line():
    with pytest.raises(OSError, match=r"^'/dev/full' could not be written: No space left on device\."):
        write(Path("/dev/full"), bytes(10_000_000))


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444])
def test_permissions_are_kept(tmp_path, mode):
    (tmp_path / "a").write_bytes(b"old")
    (tmp_path / "a").chmod(mode)
    write(tmp_path / "a")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == mode


def test_the_longest_names_can_be_written(tmp_path):
    write(tmp_path / ("ä" * 127))
    assert [len(os.fsencode(path.name)) for path in tmp_path.iterdir()] == [254]


@pytest.mark.parametrize("place", ["none/a", "file/a", "folder"])
def test_an_unwritable_place_is_an_error_of_one_line(tmp_path, place):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match=r"^'.*' could not be written: .+\. What was saved before is intact\.$"):
        write(tmp_path / place)
    assert not list(tmp_path.rglob("*.part"))


def test_a_folder_has_one_writer_until_it_ends(tmp_path):
    script = (
        "import sys, pathlib; from macattr.atomic_files import sole_writer\n"
        "with sole_writer(pathlib.Path(sys.argv[1])): print('in', flush=True); input()"
    )
    command = [sys.executable, "-c", script, tmp_path / "out"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "in\n"
        with (
            pytest.raises(ValueError, match=rf"is in use by process {other.pid} on .+: wait until it ends"),
            sole_writer(tmp_path / "out"),
        ):
            pass
        other.kill()
        other.wait()
        with sole_writer(tmp_path / "out"):
            assert (tmp_path / "out").is_dir()


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"^the folder '.*/file/out' cannot be written: Not a directory\."):
        sole_writer(tmp_path / "file" / "out").__enter__()
