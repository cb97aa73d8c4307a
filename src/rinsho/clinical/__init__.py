"""Entities with their places, classes with their probabilities, tokens, training rows: for rooms and the server.

Functions here make jobs from texts and answers from the jobs' results; who runs the jobs is another matter: the command
line with `rinsho.generate.batcher.Batcher.run`, the server with its engine. See docs/extract.md.

    extraction = Extraction(opened, text)
    entities = extraction.entities(Batcher(opened.decoder).run(extraction.jobs))
"""

from rinsho.clinical.classifying import Classification
from rinsho.clinical.entities import THRESHOLD, USUAL, VALUE, Entity, Extraction, kinds_of
from rinsho.clinical.questions import QUESTIONS, Question, any_class, own_question, tuned_tasks
from rinsho.clinical.rows import tokens, training_row, training_rows
from rinsho.clinical.values import find_values

__all__ = [
    "QUESTIONS", "THRESHOLD", "USUAL", "VALUE", "Classification", "Entity", "Extraction", "Question", "any_class",
    "find_values", "kinds_of", "own_question", "tokens", "training_row", "training_rows", "tuned_tasks",
]  # fmt: skip
