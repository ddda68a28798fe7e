"""Records are refused where several machines can open them at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from prefrl.errors import UserError
from prefrl.store import PreferenceStore, engine
from prefrl.store.filesystems import network_filesystem

MOUNTS = """\
/dev/vda / ext4 rw,relatime 0 0
server:/home /home nfs4 rw,vers=4.2 0 0
/dev/sdb /home/scratch xfs rw 0 0
anna@host: /mnt/my\\040runs fuse.sshfs rw,nosuid 0 0
//nas/share /mnt/nas cifs rw 0 0
grpcfuse /mnt/docker fuse.grpcfuse rw 0 0
tmpfs /tmp tmpfs rw 0 0
short
"""


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/home/anna/runs/record.sqlite", "nfs4"),
        ("/home/scratch/record.sqlite", None),
        ("/mnt/my runs/deep/record.sqlite", "fuse.sshfs"),
        ("/mnt/nas/record.sqlite", "cifs"),
        ("/mnt/nasty/record.sqlite", None),
        ("/mnt/docker/record.sqlite", None),
        ("/var/record.sqlite", None),
    ],
)
def test_a_path_lies_on_what_is_mounted_nearest_above_it(tmp_path: Path, path: str, name: str | None) -> None:
    table = tmp_path / "mounts"
    table.write_text(MOUNTS)
    assert network_filesystem(Path(path), table) == name


def test_without_a_table_of_mounts_nothing_is_refused(tmp_path: Path) -> None:
    assert network_filesystem(tmp_path, tmp_path / "none") is None


def test_a_record_on_a_network_file_system_is_refused_by_its_name_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "record.sqlite"
    PreferenceStore(path).close()
    monkeypatch.setattr(engine, "network_filesystem", lambda _: "fuse.sshfs")
    for where in (path, tmp_path / "new.sqlite"):
        with pytest.raises(UserError, match=r"network file system \(fuse.sshfs\).*prefrl serve RUN.*postgresql://"):
            PreferenceStore(where)
    assert not (tmp_path / "new.sqlite").exists()
