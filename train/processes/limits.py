"""What a run asks of the operating system: open files, and the memory that it has freed."""

import ctypes
import resource

ENOUGH = 65_536  # files; more than that slows down programs that close all they might have

TRIM_THRESHOLD, MMAP_MAX = -1, -4  # options of glibc's mallopt, as malloc.h numbers them


def raise_open_files() -> None:
    """Let this process and those it starts open as many files as the hard limit allows, up to ``ENOUGH``.

    A process has a socket for each other process of the run, and workers keep the files of packed data open; the usual
    soft limit is 1,024.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = ENOUGH if hard == resource.RLIM_INFINITY else min(hard, ENOUGH)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def keep_freed_memory() -> None:
    """Keep what this process frees for its next allocations, where the C library is glibc.

    On a CPU, activations live on the heap. glibc returns large blocks to the system when they are freed, so every step
    faults the pages in and zeroes them again: a sixth of ResNet-50's step at 32 images of 224 pixels.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(MMAP_MAX, 0)
        mallopt(TRIM_THRESHOLD, -1)
