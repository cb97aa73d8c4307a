"""What a model is asked in a conversation: the turns in the prompt template that it was tuned with.

Importing this file loads no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rinsho.chat import Message
from rinsho.prompting import PromptTemplate, template_of


def tuned_template(manifest: Mapping[str, Any], where: object) -> PromptTemplate | None:
    """The prompt template a model was tuned with; None where there was none.

    Args:
        manifest: `rinsho.json` of the model's folder (`rinsho.model_folder.read_manifest`).
        where: the file, for the error.

    Raises:
        UserError: the file holds a template that is none.
    """
    tuned = manifest.get("finetune")
    text = tuned.get("prompt_template") if isinstance(tuned, dict) else None
    template = template_of(text, where) if text else None
    return None if template is None or template.name == "none" else template


def asked(messages: Sequence[Message], template: PromptTemplate | None) -> list[Message]:
    """The conversation with each question in the template, behind its system turn if it has one.

    A conversation with a system turn of its own keeps that one.
    """
    if template is None:
        return list(messages)
    *system, _ = template.turns("", "")
    own = any(turn.role == "system" for turn in messages)
    return ([] if own else system) + [
        Message("user", template.fill(turn.content, "")) if turn.role == "user" else turn for turn in messages
    ]
