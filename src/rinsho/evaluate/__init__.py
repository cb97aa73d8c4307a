"""Room 6, evaluation: models and benchmark data in, scores with chance, interval and baselines out (N3, M-5, P-2).

    rinsho evaluate MODEL... DATA... [LEXICON.csv]

A MODEL is a model or adapter folder, a GGUF file (asked through llama.cpp, with the tokenizer that lies beside it; a
folder of such files is all of them), a YAML file that describes an OpenAI-compatible endpoint, or a file of answers
made elsewhere (JSON lines with `id` and `answer`, optionally `mode` and `form`), which is only scored; so is the folder
of an earlier evaluation. With several models each has a run folder of its own below the run folder
(`evaluate.several`). DATA are folders or files of questions (`rinsho.tasks.read`). Word lists (.csv, .tsv with a column
`surface`) feed the copy-the-lexicon baseline.

The run folder holds `answers.jsonl` (raw answers, see `rinsho.evaluate.ask`), `asked.json` (who gave them, and how the
questions were asked, see `rinsho.evaluate.asked`), `scores.json` and the report, also as `report.html`. Where answers
of an earlier evaluation are scored, its `asked.json` stands in for all that the recipe does not set. The report's
numbers (equal to `scores.json`), read by `rinsho.report` too:

* `model`, `how` (fine-tuned, pre-trained, few-shot, zero-shot, unknown), `seen_tokens`, `answer_form` (of the answers;
  both names with a comma where they differ), `prompt_form`, `few_shot`, `few_shot_from`, `split`, `test_part`,
  `split_seed`, `seed`: what was evaluated, how it was asked, which test part was asked, and under which split the
  baselines are meant.
* `scores`: one row per task and mode: `task`, `mode` (free, constrained, likelihood), `n`, `metric` (accuracy or
  exact_f1), `score`, `interval` ([low, high], 95 %), `interval_kind`, `chance`, `chance_kind`, `above_chance` (whole
  interval above chance), `baselines` (majority, naive_bayes, same_document | copy_lexicon -> score), `also` (further
  figures: kappa, accuracy_official, kappa_official (JMED-LLM), accuracy_strict, kappa_strict, answer_rate | overlap_f1,
  official_exact_f1, official_partial_f1, entities_per_answer | points, points_total, points_interval,
  passes, ...), `kappa_interval`, `rotation`
  (orders, mean, lowest, same_answer; null where options were not rotated), `leaked` and `clean` ({n, score} of the
  questions whose passage any source holds, and of those that all sources call clean: a passage too short for a source
  to tell is in neither; both null where nothing is known; `score` is null where n is 0).
* `cases`, `tags`: rows like those of `scores` with `group` (name of the hard case or tag), without `also`; those of
  entity tasks with `overlap_f1`.
* `classes`: per task, mode and `label`: `gold`, `given`, `precision`, `recall`, `f1`.
* `leakage`: per task and `source`: `questions`, of which `exact`, `near` and `too_short` (questions); `passages`
  (distinct ones), of which `passages_leaked`, and their `share`; `scores`: mode -> {"leaked": {n, score}, "clean": {n,
  score}} by this source alone. Beside it `leakage_source`.
* `training`: manifests of the split of each JMED-LLM folder, with warnings.
* `boards`: ours among published scores, in the layout of the reports' tables (`rinsho.evaluate.boards`).
* `samples`: per task and mode a few of `id`, `mode`, `prompt`, `gold`, `answer`, `value` (0 to 1).
* `answers`: `count`, `of_unknown_questions`, `shortened_prompts`, `mean_free_tokens` and `mean_free_chars` by task
  (N3-5), `unanswered` (task -> answers that are missing in the scored modes, counted as wrong); `few_shot_mean` and
  `few_shot_fewest` (solved examples that stood before a question; null without few-shot) and `dropped_examples`
  (questions that got fewer than asked for, since the window is full).
* `left_out`: questions that need an image and were not asked, by task.
* `notes`: what else a reader must know, for instance tasks that a file of answers does not touch.

Accuracy and F1 read answers as follows. Free letter answers: by the official rule (first A to F anywhere); free
answers of models tuned to say text, then letter: by the last line (the official rule would read the A of "ADE").
Entities are mapped from the cleaned text that our models see to the passage's own spelling before they are compared;
`official_*` compare the answer as it was said. See docs/evaluation.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from rinsho.errors import UserError
from rinsho.recipe import Settings
from rinsho.run import Report, Stage, perform, read_done

Mode = Literal["free", "constrained", "likelihood"]


class Recipe(Settings):
    """Settings of an evaluation; the defaults put every question of every benchmark found in the data."""

    tasks: tuple[str, ...] | None = Field(None, description="only these tasks (igakuqa is one); null: all (N3-1, N3-2)")
    years: tuple[int, ...] | None = Field(None, description="IgakuQA years; all that are in the data when null (N3-1)")
    max_items: int | None = Field(None, ge=1, description="questions per task at most, drawn by the seed (N3-2)")
    modes: tuple[Mode, ...] = Field(
        ("free", "constrained"),
        min_length=1,
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
    few_shot: int = Field(0, ge=0, description="solved examples before each question; for base models (N3-1)")
    few_shot_from: str | None = Field(
        None, description="a year of examinations or a file of solved problems; null: three invented ones (N3-1)"
    )
    rotations: int = Field(
        0, ge=0, description="further orders of the options in which every choice is asked again (robustness, N3-2)"
    )
    leakage_corpus: tuple[Path, ...] = Field(
        (), description="corpora, or training runs, that test passages are looked for in: pre-training text (P-2)"
    )
    leakage_chars: int = Field(
        24, ge=8, description="characters in a row, white space aside, that a passage must share with a corpus (P-2)"
    )
    published: bool = Field(True, description="published scores stand beside ours (N3-3)")
    plot: bool = Field(True, description="draw the figures of report.html (N3-3)")
    max_new_tokens: int = Field(512, ge=1, description="room for an answer to an entity question, in tokens (N3-2)")
    max_new_tokens_choice: int = Field(
        64, ge=1, description="room for an answer to a choice question, in tokens (N3-2)"
    )
    max_batch_tokens: int = Field(24_576, ge=1, description="tokens asked at once, room for answers included (N3-2)")
    bootstrap_samples: int = Field(1000, ge=1, description="draws behind the intervals of F1 and kappa (N3-2)")
    sample_answers: int = Field(3, ge=0, description="answers per task and mode shown in the report (NA-5)")
    lexicon_column: str | None = Field(
        None, description="column of the word lists that holds the terms; null: surface or 出現形 (N3-2)"
    )
    threads: int | None = Field(None, ge=1, description="processor threads; all when null")
    seed: int = Field(1, description="seed of the bootstrap and of the draw of max_items")

    @field_validator("few_shot_from", mode="before")
    @classmethod
    def _year_as_text(cls, value: object) -> object:
        return str(value) if type(value) is int else value


def run(recipe: Recipe, inputs: Sequence[Path], out: Path) -> Report:
    """Scores of each MODEL (or file of answers) on the benchmarks in DATA, as a run folder.

    Raises:
        UserError: what `check` finds, or a benchmark file with a wrong line.
    """
    for problem in check(recipe, inputs):
        raise problem
    from rinsho.evaluate import endpoint
    from rinsho.evaluate.inputs import sort_inputs

    given = sort_inputs(inputs)
    # Of an endpoint's file only that counts which can change answers: not the pace, the address or the key.
    files = [subject.path for subject in given.subjects if subject.kind == "endpoint"]
    also = [endpoint.identity(endpoint.read_settings(path)) for path in files]
    rest = [path for path in map(Path, inputs) if path not in files]

    def work(stage: Stage) -> Report:
        if len(given.subjects) > 1:
            from rinsho.evaluate.several import evaluate_several

            return evaluate_several(recipe, given, stage)
        from rinsho.evaluate.work import evaluate

        return evaluate(recipe, given, stage)

    todo = f"finished models are not asked again when their folders, {out}/NAME, are given in their place"
    several = len(given.subjects) > 1
    beside = [file for subject in given.subjects for file in subject.beside]
    return perform(
        "evaluate", recipe, [*rest, *further(recipe), *beside], out, work, also=also, todo=todo if several else ""
    )  # fmt: skip


def check(recipe: Recipe, inputs: Sequence[Path]) -> list[UserError]:
    """Everything that can be known before a model is loaded: missing inputs, wrong benchmark files, unknown tasks."""
    from rinsho.client import check as check_client
    from rinsho.evaluate.corpora import corpora_of
    from rinsho.evaluate.endpoint import read_settings
    from rinsho.evaluate.inputs import sort_inputs
    from rinsho.evaluate.questions import read_tests, setting
    from rinsho.tasks.baselines import read_lexicon

    paths = [Path(path) for path in inputs]
    missing = [path for path in (*paths, *recipe.leakage_corpus) if not path.exists()]
    found = [
        UserError("not there", where=path, expected="a model, questions or a word list", todo="check the path")
        for path in missing
    ]
    unfinished = [path for path in paths if (path / "manifest.json").is_file() and read_done(path) is None]
    found += [
        UserError("this stage has not finished", where=path, expected="a DONE file in it", todo="run it again first")
        for path in unfinished
    ]
    coming = [path for path in paths if path in missing or path in unfinished]
    try:
        given = sort_inputs(paths, coming)
    except UserError as problem:
        return [*found, problem]

    def tests() -> None:
        ways = {how.questions: how for how in (setting(recipe, subject) for subject in given.subjects)}
        for how in ways.values():
            read_tests(given, how)  # once for all models that are asked the same

    def endpoints() -> None:
        for path in [subject.path for subject in given.subjects if subject.kind == "endpoint"]:
            found.extend(check_client(read_settings(path), str(path)))
            if "free" not in recipe.modes:
                raise UserError("an endpoint only answers freely", where="evaluate.modes", expected="free among them")
            if recipe.answer_form == "text_letter":
                raise UserError(
                    "an endpoint is asked for letters", where="evaluate.answer_form", expected="auto or letter",
                    todo="leave it out: only our tuned models answer otherwise",
                )  # fmt: skip

    def corpora() -> None:
        for path in filter(Path.exists, recipe.leakage_corpus):
            corpora_of(path)

    def lexicon() -> None:
        read_lexicon([path for path in given.lexicon if path not in coming], recipe.lexicon_column)

    looks = [endpoints, corpora, lexicon] if set(coming) & set(given.data) else [tests, endpoints, corpora, lexicon]
    for look in looks:
        try:
            look()  # a wrong file must not be found after all questions are answered
        except UserError as problem:
            found.append(problem)
    return list({str(problem): problem for problem in found}.values())


def further(recipe: Recipe) -> list[Path]:
    """What else the result depends on: the corpora that are looked through, a file of solved examples."""
    shown = [Path(recipe.few_shot_from)] if recipe.few_shot_from else []
    return [*recipe.leakage_corpus, *(path for path in shown if path.exists())]
