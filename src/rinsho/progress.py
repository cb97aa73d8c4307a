"""Progress with rate and time left: a live bar on a terminal, a line every few seconds in a log."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TextIO

LINE_EVERY_SECONDS = 5.0
BAR_EVERY_SECONDS = 0.2


class Progress:
    """Counts work done and tells it on `stream`; use as a context manager.

    Args:
        total: the whole amount of work in `unit`, or None when it is not known.
        done: work that an earlier, interrupted run has already finished; it does not count for the rate.

    Attributes:
        left: said instead of the time left that follows from the rate, when the caller knows better; empty: nothing is.
    """

    def __init__(self, label: str, total: int | None, unit: str, done: int = 0, stream: TextIO | None = None) -> None:
        self.label, self.total, self.unit, self.done = label, total, unit, done
        self._first = done
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty()
        self._started = self._shown = time.monotonic()
        self._figures: dict[str, object] = {}
        self.left: str | None = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._show()
        if self._live:
            self._stream.write("\n")
            self._stream.flush()

    @property
    def rate(self) -> float:
        """Units a second since this process began."""
        return (self.done - self._first) / max(time.monotonic() - self._started, 1e-9)

    def update(self, count: int = 1, **figures: object) -> None:
        """Adds `count` to the work done; `figures` (loss=…, dropped=…) stand behind the rate."""
        self.done += count
        self._figures.update(figures)
        if time.monotonic() - self._shown >= (BAR_EVERY_SECONDS if self._live else LINE_EVERY_SECONDS):
            self._show()

    def line(self) -> str:
        """The present state as one line."""
        parts = [f"{self.label}: {amount(self.done)}"]
        if self.total:
            parts[0] += f"/{amount(self.total)} {self.unit} ({self.done / self.total:.0%})"
        else:
            parts[0] += f" {self.unit}"
        parts.append(f"{amount(self.rate)} {self.unit}/s")
        parts += [
            f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
            for key, value in self._figures.items()
        ]
        if self.total and self.left is not None and self.done < self.total:
            parts += [self.left] if self.left else []
        elif self.total and self.rate > 0 and self.done < self.total:
            parts.append(f"{duration((self.total - self.done) / self.rate)} left")
        else:
            parts.append(f"{duration(time.monotonic() - self._started)} in all")
        return ", ".join(parts)

    def _show(self) -> None:
        self._shown = time.monotonic()
        self._stream.write(f"\r\x1b[K{self.line()}" if self._live else f"{self.line()}\n")
        self._stream.flush()


def amount(number: float) -> str:
    """A count for people.

    >>> amount(950), amount(12_345), amount(3_400_000), amount(2.5)
    ('950', '12.3k', '3.4M', '2.5')
    """
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if number >= size:
            return f"{number / (1e3 if suffix == 'k' else size):.3g}{suffix}"
    return f"{number:.3g}" if number < 100 and number != int(number) else str(int(number))


def duration(seconds: float) -> str:
    """A span of time for people.

    >>> duration(4.2), duration(75), duration(3_700)
    ('4 s', '1 min 15 s', '1 h 1 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
