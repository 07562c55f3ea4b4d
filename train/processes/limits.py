"""Limits of the operating system that a run raises for itself."""

import resource

ENOUGH = 65_536  # files; more than that slows down programs that close all they might have


def raise_open_files() -> None:
    """Let this process and those it starts open as many files as the hard limit allows, up to ``ENOUGH``.

    A process has a socket for each other process of the run, and workers keep the files of packed data open; the usual
    soft limit is 1,024.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = ENOUGH if hard == resource.RLIM_INFINITY else min(hard, ENOUGH)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
