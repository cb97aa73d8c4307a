"""Model folder -> text, log-probabilities and answers limited to spans of a passage. Importing this loads torch."""

from rinsho.generate.batches import shorten
from rinsho.generate.engine import Generator

__all__ = ["Generator", "shorten"]
