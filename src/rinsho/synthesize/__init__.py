"""The synthesis room: language models write texts, exercises and instructions about given topics (N2.1-5, N2.1-6, M-7).

    rinsho synthesize [TOPICS...] [DOCUMENTS...] --recipe R --out FOLDER

TOPICS are word lists (.csv, .tsv, or a folder of `rinsho tokenizer lexicon`); DOCUMENTS are what exercises of reading
are made from. Teachers are OpenAI-compatible endpoints, model folders or GGUF files, several at once. The run folder
holds

* `texts/`: documents for `rinsho corpus`, each with `synthetic: true`, its teacher, prompt, settings and licence note;
* `exercises/` and `instructions/`: data of `rinsho finetune`;
* `set_aside/`, `failed.jsonl`, `requests.csv`: what became of every single request.

A run may take days: killed anywhere, the same command continues and asks nothing twice. See docs/synthesize.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from rinsho import client
from rinsho.errors import UserError
from rinsho.recipe import Settings
from rinsho.run import Report, Stage, perform
from rinsho.synthesize.calls import Kind

__all__ = ["Recipe", "Teacher", "check", "describe", "run"]


class Teacher(client.ClientSettings):
    """A language model that writes: an endpoint, or a model on this machine (`folder`)."""

    max_tokens: int = Field(1024, ge=1, description="room for an answer, in tokens")
    temperature: float = Field(0.8, ge=0, description="0 takes the likeliest token each time: one sample then")
    timeout_seconds: float = Field(300.0, gt=0, description="an answer must be whole after so long")
    max_retries: int = Field(10, ge=0, description="further attempts: with the default a server may be gone 3 minutes")
    folder: str = Field("", description="model folder, adapter folder or GGUF file instead of base_url and model")
    kinds: tuple[Kind, ...] | None = Field(None, description="what it writes; null: all kinds of the recipe")
    share: float = Field(1.0, gt=0, description="of the (topic, sample) pairs, against the other teachers'")
    license: str = Field("", description="licence note of what it writes; stands in every text")
    form: Literal["float32", "bfloat16", "int8", "int4"] | None = Field(
        None, description="number form of a folder's weights; null: what this machine is fast in (M-6)"
    )
    slots: int = Field(4, ge=1, le=256, description="texts that a model of this machine writes at once")


class Recipe(Settings):
    """Settings of a synthesis."""

    teachers: dict[str, Teacher] = Field({}, description="name -> endpoint or model; the report has five (N2.1-5)")
    kinds: tuple[Kind, ...] = Field(
        ("textbook", "physician_exam"),
        description="of textbook, physician_exam, pharmacist_exam (N2.1-5, N2.1-6), instructions (M-7), reading",
    )
    assign: Literal["share", "all"] = Field(
        "share", description="share: one teacher for each (topic, sample); all: every teacher writes it (N2.1-5)"
    )
    topic_kinds: tuple[str, ...] | None = Field(
        None, description="kinds of topics to take (disease, drug, ...); null: all that the lists have"
    )
    max_topics: int | None = Field(None, ge=1, description="a random sample of the topics; null: all (N2.1-5)")
    textbook_samples: int = Field(1, ge=1, description="textbook passages a topic (N2.1-5)")
    exercise_samples: int = Field(5, ge=1, description="exercises a topic and kind (N2.1-6)")
    reading_samples: int = Field(1, ge=1, description="exercises a passage of a document")
    passage_chars: int = Field(1500, ge=100, description="characters of a passage at most; it ends with a sentence")
    max_passages: int | None = Field(None, ge=1, description="a random sample of the passages; null: all")
    seed_tasks: str = Field("", description="JSON lines with seed tasks; empty: those that come with rinsho (M-7)")
    instructions: int = Field(1000, ge=1, description="new instructions wanted; the report's set has 52K (M-7)")
    instructions_per_request: int = Field(5, ge=1, le=20, description="new instructions asked for at once (M-7)")
    instructions_examples: int = Field(4, ge=1, description="seed tasks that a prompt shows (M-7)")
    grown_examples: int = Field(2, ge=0, description="accepted new instructions that a prompt shows (M-7)")
    round_requests: int = Field(32, ge=1, description="requests of a round; the next one sees what it brought (M-7)")
    max_instruction_similarity: float = Field(
        0.7, gt=0, le=1, description="an instruction as near as this to another one is not new (M-7)"
    )
    prompts: str = Field("", description="folder with templates of one's own; a missing one is the built-in")
    cache: str = Field("", description="folder that keeps paid answers; empty: `answers` beside the run folder")
    min_chars: int = Field(80, ge=0, description="shorter texts are set aside; half of it for an exercise")
    max_repeated_fraction: float = Field(
        0.3, ge=0, le=1, description="a text with a larger share of repeated characters is set aside"
    )
    min_japanese_fraction: float = Field(
        0.3, ge=0, le=1, description="a text with a smaller share of Japanese letters is set aside"
    )
    near_threshold: float = Field(
        0.8, ge=0, le=1, description="of two texts this similar (Jaccard of character n-grams) one stays; 0: both"
    )
    decontaminate: tuple[Path, ...] = Field(
        (), description="benchmark files or folders; exercises that hold half of one of their questions are set aside"
    )
    decontamination_chars: int = Field(
        20, ge=8, description="a shared run has at least so many characters, white space not counted"
    )
    agreement: int = Field(0, ge=0, description="further teachers that answer each exercise; 0: none")
    min_agreement_fraction: float = Field(
        0.5, ge=0, le=1, description="exercises whose answer fewer of them give are set aside"
    )
    max_failed_fraction: float = Field(0.01, ge=0, le=1, description="share of requests that may fail for good")
    seed: int = Field(1, description="decides topics, passages, teachers and the seed of every request")


def run(recipe: Recipe, inputs: Sequence[Path], out: Path) -> Report:
    """Texts, exercises and instructions by the recipe's teachers, each with where it comes from.

    Raises:
        UserError: what `check` finds, a teacher that refuses, or more requests without an answer than
            `max_failed_fraction` allows; what was answered is kept, and the same command goes on.

    Source: SPEC N2.1-5, N2.1-6, M-7.
    """
    from rinsho.synthesize import checks

    for problem in checks.check(recipe, inputs):
        raise problem

    def make(stage: Stage) -> Report:
        from rinsho.synthesize import work

        return work.synthesize(recipe, [Path(path) for path in inputs], stage)

    digest, names = checks.templates(recipe, inputs)
    return perform(
        "synthesize", recipe, checks.given(recipe, inputs), out, make, also=[digest], identity=checks.identity(recipe),
        todo=f"perhaps a template changed: {', '.join(f'{name}.txt' for name in names)}",
    )  # fmt: skip


def check(recipe: Recipe, inputs: Sequence[Path]) -> list[UserError]:
    """Everything that can be known before the first request: teachers, keys, inputs, templates, files, packages."""
    from rinsho.synthesize import checks

    return checks.check(recipe, inputs)


def describe(recipe: Recipe, inputs: Sequence[Path], out: Path | None = None) -> str:
    """What a user should know before starting: where texts go, requests, tokens, hours, what is already paid.

    `out` is the run folder, beside which answers are kept where the recipe names no cache.
    """
    from rinsho.synthesize import estimate

    return estimate.describe(recipe, inputs, out)
