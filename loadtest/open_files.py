"""Room for thousands of sockets: every connection is an open file, and a process may have only so many."""

from __future__ import annotations

import resource

OTHER_FILES = 256
"""Beside the sockets: logs, libraries, the journal, the history."""


def make_room(sockets: int) -> None:
    """Let this process, and those it starts, have so many connections.

    Raises OSError with what to do when the system does not allow it.
    """
    wanted = sockets + OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise OSError(
            f"{sockets:,} connections need {wanted:,} open files, and at most {hard:,} are allowed here: raise the"
            f" limit (as root: ulimit -Hn {wanted}; for good: nofile in /etc/security/limits.conf, LimitNOFILE= of a"
            " systemd unit), or use fewer"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
