"""Benchmarks as items (JMED-LLM, examinations, one's own): reading, prompts, splits, scorers, intervals, baselines.

Source: N3, N2.4-2, M-5.
"""

from rinsho.tasks.igakuqa import read_igakuqa
from rinsho.tasks.item import (
    AnswerForm,
    Item,
    Kind,
    Part,
    Split,
    TestPart,
    answer_text,
    choice_text,
    document_key,
    documents,
    labels,
    passages,
    rotated,
    unrotated_letter,
)
from rinsho.tasks.read import read_data, read_jmed, read_train
from rinsho.tasks.splits import Splitting, train_part

__all__ = [
    "AnswerForm", "Item", "Kind", "Part", "Split", "Splitting", "TestPart", "answer_text", "choice_text",
    "document_key", "documents", "labels", "passages", "read_data", "read_igakuqa", "read_jmed", "read_train",
    "rotated", "train_part", "unrotated_letter",
]  # fmt: skip
