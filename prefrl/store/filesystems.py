"""Which file systems a record cannot lie on: those that several machines see, whose locks SQLite cannot rely on.

A record in a file keeps its newest answers in a log beside it, which all who use it share through the memory of one
machine (https://www.sqlite.org/wal.html, "all processes using a database must be on the same host computer"). Opened
from two, it is damaged, which shows only later.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

NETWORK = {
    *("afs", "beegfs", "ceph", "cifs", "coda", "davfs", "gfs2", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4"),
    *("ocfs2", "orangefs", "panfs", "pvfs2", "smb3", "smbfs", "wekafs"),
}
"""Names of the kernel's; those in user space are of the form `fuse.sshfs`. What a virtual machine shares with its own
host (9p, virtiofs) is not among them."""
NETWORK_IN_USER_SPACE = re.compile(
    r"fuse\.(sshfs|nfs|smb|cifs|s3|gcs|goofys|rclone|gluster|ceph|davfs|webdav|juicefs|moosefs|mfs|lizardfs|ipfs|curlftpfs|"
    r"gvfs|blobfuse|cvmfs|seaweedfs|beegfs|hdfs)"
)


def network_filesystem(path: Path, mounts: Path = Path("/proc/self/mounts")) -> str | None:
    """Return the name of the network file system that a path lies on; None for a local one, or where it cannot be told.

    Args:
        path: of a file or folder; what of it does not exist yet lies where its nearest folder does.
        mounts: table of what is mounted where, as Linux writes it.
    """
    try:
        lines = mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    found = Path(os.path.realpath(path))  # a link that leads in a circle is told when it is opened
    best, name = -1, ""
    for line in lines:
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        place = Path(re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields[1]))
        if found.is_relative_to(place) and len(place.parts) >= best:  # of two at one place the later one is seen
            best, name = len(place.parts), fields[2]
    return name if name in NETWORK or NETWORK_IN_USER_SPACE.match(name) else None
