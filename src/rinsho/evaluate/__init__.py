"""Room 6, evaluation: a model folder and benchmark data in, scores with chance, interval and baselines out (N3).

    rinsho evaluate MODEL DATA... [LEXICON.csv]

MODEL is a model folder, or a file of answers made elsewhere (JSON lines with `id` and `answer`, optionally `mode`
and `form`), which is only scored; the `answers.jsonl` of an earlier run is such a file. Word lists (.csv, .tsv with a
column `surface`) feed the copy-the-lexicon baseline.

The run folder holds `answers.jsonl` (raw answers, see `rinsho.evaluate.ask`), `asked.json` (who gave them),
`scores.json` and the report. The report's numbers (equal to `scores.json`), read by `rinsho.report` too:

* `model`, `answer_form`, `prompt_form`, `split`, `test_part`, `split_seed`, `seed`: what was evaluated, how it was
  asked, which test part was asked, and under which split baselines and leakage are meant.
* `scores`: one row per task and mode: `task`, `mode` (free, constrained, likelihood), `n`, `metric` (accuracy or
  exact_f1), `score`, `interval` ([low, high], 95 %), `interval_kind`, `chance`, `chance_kind`, `above_chance` (whole
  interval above chance), `baselines` (majority, naive_bayes | copy_lexicon -> score), `also` (further figures: kappa,
  accuracy_official, kappa_official, accuracy_strict, kappa_strict, answer_rate | overlap_f1, official_exact_f1,
  official_partial_f1, entities_per_answer | points, points_total, ...), `kappa_interval`, `leaked` and `clean` (n and
  score of the questions whose passage was or was not trained on; null where unknown).
* `cases`, `tags`: rows like those of `scores` with `group` (name of the hard case or tag), without `also`.
* `leakage`: per task `passages`, `known`, `share` and, at the top level, `leakage_source`.
* `training`: manifests of the split of each JMED-LLM folder, with warnings.
* `samples`: per task and mode a few of `id`, `mode`, `prompt`, `gold`, `answer`, `value` (0 to 1).
* `answers`: number of answers, of shortened prompts, mean generated tokens per free answer by task (N3-5).

Accuracy and F1 read answers as follows. Free letter answers: by the official rule (first A to F anywhere); free
answers of models tuned to say text, then letter: by the last line (the official rule would read the A of "ADE").
Entities are mapped from the cleaned text that our models see to the passage's own spelling before they are compared;
`official_*` compare the answer as it was said. See docs/evaluation.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from rinsho.errors import UserError
from rinsho.recipe import Settings
from rinsho.run import Report, Stage, perform

Mode = Literal["free", "constrained", "likelihood"]


class Recipe(Settings):
    """Settings of an evaluation; the defaults put every question of every benchmark found in the data."""

    tasks: tuple[str, ...] | None = Field(None, description="only these tasks (igakuqa is one); null: all (N3-1, N3-2)")
    years: tuple[int, ...] | None = Field(None, description="IgakuQA years; all that are in the data when null (N3-1)")
    max_items: int | None = Field(None, ge=1, description="questions per task at most, drawn by the seed (N3-2)")
    modes: tuple[Mode, ...] = Field(
        ("free", "constrained"),
        description="free text (official), constrained to legal answers or spans, likelihood of option texts (N3-2)",
    )
    split: Literal["auto", "row", "document", "case"] = Field(
        "auto", description="training part of baselines and leakage; auto: the model's own, else document (N3-2)"
    )
    test_part: Literal["auto", "published", "own"] = Field(
        "auto", description="the benchmark's test rows, or a part drawn anew from the pools; auto: the model's own"
    )
    split_seed: int | None = Field(None, description="draws the own test part; null: as the model was tuned, else 1")
    answer_form: Literal["auto", "letter", "text_letter"] = Field(
        "auto", description="how choices are answered; auto: as the model was tuned, else the letter (N3-2)"
    )
    max_new_tokens: int = Field(512, ge=1, description="room for an answer to an entity question, in tokens (N3-2)")
    max_new_tokens_choice: int = Field(
        64, ge=1, description="room for an answer to a choice question, in tokens (N3-2)"
    )
    batch_tokens: int = Field(24_576, ge=1, description="tokens asked at once, room for answers included (N3-2)")
    bootstrap_samples: int = Field(1000, ge=1, description="draws behind the intervals of F1 and kappa (N3-2)")
    sample_answers: int = Field(3, ge=0, description="answers per task and mode shown in the report (NA-5)")
    lexicon_column: str = Field("surface", description="column of the word lists that holds the terms (N3-2)")
    threads: int | None = Field(None, ge=1, description="processor threads; all when null")
    seed: int = Field(1, description="seed of the bootstrap and of the draw of max_items")


def run(recipe: Recipe, inputs: Sequence[Path], out: Path) -> Report:
    """Scores of MODEL (or of a file of answers) on the benchmarks in DATA, as a run folder.

    Raises:
        UserError: what `check` finds, or a benchmark file with a wrong line.
    """
    for problem in check(recipe, inputs):
        raise problem

    def work(stage: Stage) -> Report:
        from rinsho.evaluate.work import evaluate

        return evaluate(recipe, [Path(path) for path in inputs], stage)

    return perform("evaluate", recipe, inputs, out, work)


def check(recipe: Recipe, inputs: Sequence[Path]) -> list[UserError]:
    """Everything that can be known before a model is loaded: missing inputs, wrong benchmark files, unknown tasks."""
    from rinsho.evaluate.inputs import WORD_LISTS, Inputs, sort_inputs
    from rinsho.evaluate.work import chosen, facts_of, read_tests
    from rinsho.tasks.baselines import read_lexicon

    paths, found = [Path(path) for path in inputs], []
    try:
        given = sort_inputs(paths)
    except UserError as problem:  # about the model; the data can be looked at all the same
        found.append(problem)
        lists = [path for path in paths[1:] if path.suffix in WORD_LISTS]
        data = tuple(path for path in paths[1:] if path not in lists)
        if not data:
            return found
        given = Inputs(None, None, data, tuple(path for path in lists if path.is_file()))

    def tests() -> None:
        facts = facts_of(given)
        read_tests(recipe, given, chosen(recipe, facts), facts.years)

    for look in (tests, lambda: read_lexicon(given.lexicon, recipe.lexicon_column)):
        try:
            look()  # a wrong file must not be found after all questions are answered
        except UserError as problem:
            found.append(problem)
    return found
