"""What torch's caching allocator takes of a card for tensors of given sizes that come and go in a given order.

A size is rounded up to 512 bytes and cut out of a segment, which is 2 MiB for sizes up to 1 MiB, 20 MiB for those
below 10 MiB, and else the size rounded up to 2 MiB. The smallest free piece that is large enough goes before a new
segment. What is left over of a piece is a piece again, unless it is 1 MiB or less of a large one: then it is taken
along. What is given back joins its free neighbours and stays with the allocator (torch,
c10/cuda/CUDACachingAllocator.cpp).
"""

from __future__ import annotations

from bisect import bisect_left, insort

MIB = 1 << 20


class Allocator:
    """Bytes. allocated: in use now; peak: the most of that; reserved: held of the card, which only grows."""

    def __init__(self):
        self.allocated = self.peak = self.reserved = 0
        self._free: tuple[list, list] = ([], [])  # large pieces and small ones: (size, start)
        self._sizes, self._starts = {}, {}  # of free pieces, by start and by end

    def take(self, size: int) -> tuple[int, int, bool]:
        """Room for a tensor of `size` bytes: (start, size, whether it is a small one)."""
        size, small = round_up(max(size, 1), 512), size <= MIB
        if (place := bisect_left(self._free[small], (size,))) == len(self._free[small]):
            segment = 2 * MIB if small else 20 * MIB if size < 10 * MIB else round_up(size, 2 * MIB)
            self._keep(2 * self.reserved, segment, small)  # so that no two segments touch
            self.reserved += segment
        length, start = self._free[small][place]
        self._drop(start, length, small)
        if length - size > (0 if small else MIB):
            self._keep(start + size, length - size, small)
        else:
            size = length
        self.allocated += size
        self.peak = max(self.peak, self.allocated)
        return start, size, small

    def give_back(self, start: int, size: int, small: bool) -> None:
        """The tensor in that room is gone."""
        self.allocated -= size
        if after := self._sizes.get(start + size):
            self._drop(start + size, after, small)
            size += after
        if (before := self._starts.get(start)) is not None:
            size, start = size + self._sizes[before], before
            self._drop(before, self._sizes[before], small)
        self._keep(start, size, small)

    def _keep(self, start: int, size: int, small: bool) -> None:
        insort(self._free[small], (size, start))
        self._sizes[start], self._starts[start + size] = size, start

    def _drop(self, start: int, size: int, small: bool) -> None:
        del self._free[small][bisect_left(self._free[small], (size, start))]
        del self._sizes[start], self._starts[start + size]


def round_up(size: int, step: int) -> int:
    """The next multiple of `step`."""
    return -(-size // step) * step
