"""Calls in the order of lines, in bounded memory."""

from __future__ import annotations

import tempfile
from array import array
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO, Final

if TYPE_CHECKING:
    import numpy as np

_SPILL_ROWS: Final = 1 << 20
NO_CHOICE: Final = -1
NO_TIME: Final = -1


class CallLog:
    """Calls in the order of lines: kind, element count, choice and time, 24 bytes a call.

    Beyond a million calls they go to a temporary file; `chunks` gives all of them back, as often
    as asked.
    """

    def __init__(self, spill_rows: int = _SPILL_ROWS) -> None:
        self.base = 0
        self._spill_rows = spill_rows
        self._spilt: BinaryIO | None = None
        self._sizes: list[int] = []
        self._clear()

    def _clear(self) -> None:
        self.kinds = array("i")
        self.counts = array("q")
        self.choices = array("i")
        self.times = array("q")

    def __len__(self) -> int:
        return self.base + len(self.kinds)

    def extend(self, kinds: np.ndarray, counts: np.ndarray, times: np.ndarray | None) -> int:
        """Append calls (int32, int64, int64; no times: None); returns the first one's row."""
        import numpy as np

        first, size = len(self), len(kinds)
        if times is None:
            times = np.full(size, NO_TIME, np.int64)
        self.kinds.frombytes(kinds.astype("i4").tobytes())
        self.counts.frombytes(counts.astype("i8").tobytes())
        self.choices.frombytes(np.full(size, NO_CHOICE, "i4").tobytes())
        self.times.frombytes(times.astype("i8").tobytes())
        return first

    def choose(self, rows: np.ndarray, choice: int) -> None:
        """Note that these calls, not yet in the temporary file, were made so."""
        import numpy as np

        np.frombuffer(self.choices, "i4")[rows - self.base] = choice

    def relieve(self) -> None:
        """Move the calls to the temporary file if there are many. Call it between blocks."""
        if len(self.kinds) < self._spill_rows:
            return
        if self._spilt is None:
            self._spilt = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the log
        for column in (self.kinds, self.counts, self.choices, self.times):
            column.tofile(self._spilt)
        self._sizes.append(len(self.kinds))
        self.base += len(self.kinds)
        self._clear()

    def chunks(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
        """(kinds int32, counts int64, choices int32, times int64), in order."""
        import numpy as np

        if self._spilt is not None:
            self._spilt.seek(0)
            for size in self._sizes:
                columns = [self._spilt.read(size * width) for width in (4, 8, 4, 8)]
                kinds, counts, choices, times = (
                    np.frombuffer(data, dtype)
                    for data, dtype in zip(columns, ("i4", "i8", "i4", "i8"), strict=True)
                )
                yield kinds, counts, choices, times
        if self.kinds:
            yield (
                np.frombuffer(self.kinds, "i4"),
                np.frombuffer(self.counts, "i8"),
                np.frombuffer(self.choices, "i4"),
                np.frombuffer(self.times, "i8"),
            )
