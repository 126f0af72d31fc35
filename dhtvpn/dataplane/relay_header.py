"""Takes away what stands before data messages that a volunteer has sent on (mesh.relay_wire).

Nearly always one recvmsg brings datagrams for one id of ours: then all headers are compared at once, and what
is behind them is put together from slices that are kept.
"""

from collections.abc import Collection
from typing import Final

from dhtvpn.mesh.relay_wire import DATA_HEADER

MAX_SHAPES: Final = 16  # ours: strides whose slices are kept

_Slices = tuple[list[memoryview], list[memoryview]]


class RelayHeader:
    """Works on ``view``, the buffer that recvmsg fills."""

    def __init__(self, view: memoryview) -> None:
        self._view = view
        self._slices: dict[int, _Slices] = {}

    def strip(self, size: int, stride: int, own: Collection[bytes]) -> tuple[bytes, int]:
        """The messages, side by side, behind those headers that are among ``own``, in the first ``size``
        bytes of the buffer, datagrams of ``stride`` bytes; and how many datagrams have another one."""
        view, count = self._view, -(-size // stride)
        last, header = (count - 1) * stride, bytes(view[: min(size, DATA_HEADER)])
        if header in own and size - last > DATA_HEADER:
            heads, bodies = self._slices_for(stride)
            if b"".join(heads[: count - 1]) + bytes(view[last : last + DATA_HEADER]) == header * count:
                return b"".join((*bodies[: count - 1], view[last + DATA_HEADER : size])), 0
        parts, others = [], 0
        for start in range(0, size, stride):
            inner, end = min(start + DATA_HEADER, size), min(start + stride, size)
            if bytes(view[start:inner]) in own:
                parts.append(view[inner:end])
            else:
                others += 1
        return b"".join(parts), others

    def _slices_for(self, stride: int) -> _Slices:
        """Headers and what is behind them, of whole datagrams from the buffer's start."""
        slices = self._slices.get(stride)
        if slices is None:
            starts = range(0, len(self._view) - stride + 1, stride)
            heads = [self._view[start : start + DATA_HEADER] for start in starts]
            slices = heads, [self._view[start + DATA_HEADER : start + stride] for start in starts]
            if len(self._slices) >= MAX_SHAPES:
                self._slices.clear()
            self._slices[stride] = slices
        return slices
