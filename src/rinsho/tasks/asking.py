"""How a question is put to a model: the benchmark's own words, or a short form for small models and small budgets.

Tuning and evaluation must ask alike, so both take the turns from here; a model folder says which form it was tuned with
(`rinsho.json`, finetune.prompt_form).
"""

from __future__ import annotations

from typing import Literal

from rinsho.chat import Message
from rinsho.tasks.item import Item, labels

PromptForm = Literal["benchmark", "short"]

# Tasks whose options are the same for every question of a tag: the short form leaves them out, tuning teaches them.
FIXED_OPTIONS = ("crade", "rrtnm", "smdis", "jcsts")


def turns(item: Item, form: PromptForm = "benchmark") -> list[Message]:
    """The turns before the assistant's answer.

    `benchmark` has the system prompt and the user prompt word for word. `short` has one user turn: the question, and
    its options only where they differ from question to question. Of the invented samples' tokens the short form
    leaves two fifths; scores with it are not comparable with published ones, and reports say so.

    Source: N3-1, N3-2; the short form is our choice.
    """
    if form == "benchmark":
        return [Message("system", item.system), Message("user", item.prompt)]
    if not item.options or item.task in FIXED_OPTIONS:
        return [Message("user", item.question)]
    options = [f"{label}. {option.strip()}" for label, option in zip(labels(item), item.options, strict=True)]
    return [Message("user", "\n".join([item.question, *options]))]
