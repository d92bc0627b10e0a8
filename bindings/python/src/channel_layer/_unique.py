"""What may not be duplicated: an object that owns something of C, or stands for one that does."""

from __future__ import annotations


class Unique:
    """`copy`, `deepcopy` and `pickle` of a subclass raise `TypeError`.

    They would copy the pointer, and the second of the two owners would free what is freed already.
    """

    __slots__ = ()

    def _refuse(self, *_):
        raise TypeError(
            f"a {type(self).__name__} cannot be copied or pickled: it stands for what exists once "
            "in one process"
        )

    __copy__ = __deepcopy__ = __reduce__ = __reduce_ex__ = _refuse
