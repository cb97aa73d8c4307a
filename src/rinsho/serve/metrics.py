"""What the server counts, in the form that Prometheus reads. Numbers only: no text, no addresses, no users."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """The server's own counters (none of the process-wide ones).

    Args:
        running: jobs that the model works on, now.
        waiting: jobs that wait, now.
    """

    def __init__(self, running: Callable[[], int], waiting: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        kept = self.registry
        self._requests = Counter("rinsho_requests", "Requests that were answered", ("route", "status"), registry=kept)
        self._seconds = Histogram(
            "rinsho_request_seconds",
            "From a request's head to its last byte",
            ("route",),
            buckets=SECONDS,
            registry=kept,
        )
        self.first_token = Histogram(
            "rinsho_first_piece_seconds",
            "From a request's head to its first piece of text",
            buckets=SECONDS,
            registry=kept,
        )
        self._prompt = Counter("rinsho_prompt_tokens", "Tokens of prompts", registry=kept)
        self._completion = Counter("rinsho_completion_tokens", "Tokens of answers", registry=kept)
        for name, about, now in (
            ("rinsho_running_jobs", "Jobs that the model works on", running),
            ("rinsho_waiting_jobs", "Jobs that wait for the model", waiting),
            ("rinsho_resident_bytes", "Memory of the process", resident_bytes),
        ):
            Gauge(name, about, registry=kept).set_function(now)

    def request(self, route: str, status: int, seconds: float, prompt: int, completion: int) -> None:
        """Counts a request that has ended."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)
        self._prompt.inc(prompt)
        self._completion.inc(completion)

    def page(self) -> bytes:
        """All of them as text."""
        return generate_latest(self.registry)


def resident_bytes() -> int:
    """Memory that the process has resident; where that cannot be told the most it ever had."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024
