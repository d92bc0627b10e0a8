"""Which process this is, told apart from all that it was forked from."""

from __future__ import annotations

import os
import weakref

_forks = 0  # between the process that loaded this and the one that runs it
_told = weakref.WeakSet()


def identity():
    """What no other process has that this one shares an object with.

    A process number alone can be that of an ancestor that has ended, above all in a container,
    where numbers are few. The count of forks alone does not see those that are made in C, behind
    the interpreter's back, as some servers make them.
    """
    return _forks, os.getpid()


def in_forked_child(each) -> None:
    """Has `each.after_fork()` called in every child that the interpreter forks, before anything
    else runs there. It must not wait for anything: no other thread is left in the child."""
    _told.add(each)


def _forked() -> None:
    global _forks
    _forks += 1
    for each in list(_told):
        each.after_fork()


os.register_at_fork(after_in_child=_forked)
