"""Which texts are asked for, of whom: the calls about topics, in a fixed order, made as they are needed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rinsho.packing import number_of, share
from rinsho.synthesize.calls import Call, Topic
from rinsho.synthesize.prompts import OF_TOPICS, Prompts
from rinsho.synthesize.topics import in_japanese

if TYPE_CHECKING:
    from rinsho.synthesize import Recipe


def topic_calls(recipe: Recipe, topics: Sequence[Topic], prompts: Prompts) -> Iterator[Call]:
    """The calls about the topics, kind by kind, topic by topic, sample by sample.

    A call depends on recipe, topic and sample alone, so what was paid for stays of use when topics are added. The
    teachers of a (topic, sample) are asked the same.

    Source: SPEC N2.1-5, N2.1-6.
    """
    for kind, topic, sample, teacher in assigned(recipe, topics):
        template = prompts.of(kind, topic.kind)
        chosen = template.choices(topic.kind, f"{recipe.seed}/{kind}/{topic.id}", sample)
        spoken = in_japanese(topic.kind)
        messages = template.messages(topic=topic.name, topic_kind=spoken, reading=topic.reading, **chosen)
        about = {"topic": topic.name, "topic_kind": topic.kind}
        if chosen:
            about["drawn"] = "; ".join(f"{name}: {value}" for name, value in chosen.items())
        seed = call_seed(recipe.seed, f"{kind}/{topic.id}/{teacher}/{sample}")
        yield Call(kind, topic.id, teacher, sample, messages, template.hash, seed, about)


def assigned(recipe: Recipe, topics: Sequence[Topic]) -> Iterator[tuple[str, Topic, int, str]]:
    """Kind, topic, sample and teacher of every call, in the order of `topic_calls`, without the prompts."""
    for kind in kinds_of(recipe):
        for topic in topics:
            for sample in range(samples_of(recipe, kind)):
                for teacher in teachers_of(recipe, kind, f"{topic.id}/{sample}"):
                    yield kind, topic, sample, teacher


def count(recipe: Recipe, topics: Sequence[Topic]) -> int:
    """How many calls `topic_calls` makes."""
    return len(topics) * sum(samples_of(recipe, kind) * times_written(recipe, kind) for kind in kinds_of(recipe))


def kinds_of(recipe: Recipe) -> tuple[str, ...]:
    """The recipe's kinds of texts about topics, each once."""
    return tuple(dict.fromkeys(kind for kind in recipe.kinds if kind in OF_TOPICS))


def samples_of(recipe: Recipe, kind: str) -> int:
    """Texts of a kind about each topic."""
    return recipe.textbook_samples if kind == "textbook" else recipe.exercise_samples


def writers(recipe: Recipe, kind: str) -> tuple[str, ...]:
    """The teachers that write texts of a kind."""
    return tuple(name for name, teacher in recipe.teachers.items() if teacher.kinds is None or kind in teacher.kinds)


def times_written(recipe: Recipe, kind: str) -> int:
    """How many teachers write each text of a kind."""
    return len(writers(recipe, kind)) if recipe.assign == "all" else 1


def teachers_of(recipe: Recipe, kind: str, text: str) -> tuple[str, ...]:
    """Who writes a text of this kind: all its writers, or one of them drawn by the shares."""
    names = writers(recipe, kind)
    return names if recipe.assign == "all" else (drawn_teacher(recipe, names, f"{kind}/{text}"),)


def drawn_teacher(recipe: Recipe, names: Sequence[str], text: str) -> str:
    """One of these teachers by the shares, from the seed and what is to be written alone.

    Each teacher draws a number for itself and the highest wins (weighted rendezvous hashing). So a teacher that is
    added takes its share from all others and nothing else moves; what one that is taken out had goes to the others.

    Source: Thaler and Ravishankar 1998; Efraimidis and Spirakis 2006 (weights).
    """
    draws = {name: _draw(f"{recipe.seed}/{text}/{name}", recipe.teachers[name].share) for name in names}
    return max(draws, key=lambda name: (draws[name], name))


def call_seed(seed: int, call: str) -> int:
    """The seed of one call, below 2**31."""
    return number_of(f"{seed}/{call}") % 2**31


def _draw(key: str, weight: float) -> float:
    return math.log(max(share(key), 2**-56)) / weight
