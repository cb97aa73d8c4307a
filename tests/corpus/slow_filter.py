"""A user's own filter, slow enough to be killed in the middle."""

import os
import time

from rinsho.corpus.filters import Drop
from rinsho.document import Document


def slow(document: Document) -> Drop | None:
    time.sleep(float(os.environ.get("SLOW_FILTER_SECONDS", "0")))
    return Drop("own", 1) if "猫" in document.text else None


def wrong(document: Document) -> bool:
    return True


def odd(document: Document) -> Drop:
    return Drop("own", {1, 2})  # type: ignore[arg-type]


def fails(document: Document) -> None:
    raise ValueError(document.text)
