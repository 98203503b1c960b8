"""What torch's caching allocator takes of a card for tensors of given sizes that come and go in a given order.

A size is rounded up to 512 bytes and cut out of a segment, which is 2 MiB for sizes up to 1 MiB, 20 MiB for those
below 10 MiB, and else the size rounded up to 2 MiB. The smallest free piece that is large enough goes before a new
segment. What is left over of a piece is a piece again, unless it is 1 MiB or less of a large one: then it is taken
along. What is given back joins its free neighbours and stays with the allocator (torch,
c10/cuda/CUDACachingAllocator.cpp).
"""

from __future__ import annotations

MIB = 1 << 20


class Allocator:
    """Bytes. allocated: in use now; peak: the most of that; reserved: held of the card, which only grows."""

    def __init__(self):
        self.allocated = self.peak = self.reserved = 0
        self._free: tuple[dict, dict] = ({}, {})  # large pieces and small ones: {start: size}

    def take(self, size: int) -> tuple[int, int, bool]:
        """Room for a tensor of `size` bytes: (start, size, whether it is a small one)."""
        size, small = round_up(max(size, 1), 512), size <= MIB
        free = self._free[small]
        if not (fitting := [(length, start) for start, length in free.items() if length >= size]):
            segment = 2 * MIB if small else 20 * MIB if size < 10 * MIB else round_up(size, 2 * MIB)
            fitting = [(segment, 2 * self.reserved)]  # so that no two segments touch
            self.reserved += segment
        length, start = min(fitting)
        free.pop(start, None)
        if length - size > (0 if small else MIB):
            free[start + size] = length - size
        else:
            size = length
        self.allocated += size
        self.peak = max(self.peak, self.allocated)
        return start, size, small

    def give_back(self, start: int, size: int, small: bool) -> None:
        """The tensor in that room is gone."""
        self.allocated -= size
        free = self._free[small]
        size += free.pop(start + size, 0)
        if (before := next((one for one, length in free.items() if one + length == start), None)) is not None:
            start, size = before, size + free.pop(before)
        free[start] = size


def round_up(size: int, step: int) -> int:
    """The next multiple of `step`."""
    return -(-size // step) * step
