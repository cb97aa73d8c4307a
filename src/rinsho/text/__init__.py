"""Text rules that every room shares, so that training, evaluation and serving see the same text.

`clean` and its counted and aligned forms, `sentences`, and `personal` (spans of phone numbers, addresses, …).
Standard library only.
"""

from rinsho.text.cleaning import clean, clean_aligned, clean_counted
from rinsho.text.sentences import sentences

__all__ = ["clean", "clean_aligned", "clean_counted", "sentences"]
