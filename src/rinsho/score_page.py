"""What the pages that show scores share: their look, tables and figures (`evaluate`'s report.html, `rinsho all`'s).

A page is one file without outside names: it opens offline, prints, follows light and dark, and fits a phone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from rinsho import score_figures
from rinsho.files import write_atomic
from rinsho.progress import amount, duration

PARTS = "score_page.html.j2"  # macros and style sheet, imported by the templates of the pages
MODES = ("free", "constrained", "likelihood")  # ways of answering, in the order of every table
BASELINES = {
    "majority": "majority", "naive_bayes": "n-gram Bayes", "same_document": "same document",
    "copy_lexicon": "copy the lexicon",
}  # fmt: skip
BESIDE = ("chance", "baseline", "pass")  # rows of a board that are no models
PROMPTS = {
    "benchmark": "prompts word for word the benchmark's",
    "short": "short prompts, without options that never change: not comparable with published scores",
}
OWN_PART = "Own test part, not the published one: not comparable with published scores"
NO_SPREAD = "(no spread)"  # instead of an interval that would look certain: every draw gave the same
SAMPLE_CHARS, KEPT_CHARS = 200, 500  # of a sample answer that are shown, and that the numbers hold
NO_FIGURES = "No figures: matplotlib is not installed (pip install 'rinsho[report]')."
NOT_SHOWN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)  # controls, order of writing
DRAWN_ROWS = 60  # of one figure of scores


def render(package: str, path: Path, **values: Any) -> Path:
    """Writes the page of the template `page.html.j2` in a package, with all text from outside escaped."""
    import jinja2

    def text(where: str, name: str) -> str:
        return resources.files(where).joinpath(name).read_text(encoding="utf-8")

    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined,
        loader=jinja2.DictLoader({PARTS: text("rinsho", PARTS), "page.html.j2": text(package, "page.html.j2")}),
    )  # fmt: skip
    environment.filters |= {
        "amount": amount,
        "duration": duration,
        "score": score,
        "interval": interval,
        "sure": is_sure,
        "one_line": one_line,
        "counted": counted,
    }
    html = environment.get_template("page.html.j2").render(**values)
    write_atomic(path, writable(html))
    return path


def view(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of one evaluation as a page shows them; those of earlier versions lack some and get empty tables."""
    found: dict[str, Any] = {
        "model": "", "how": "unknown", "cases": [], "tags": [], "classes": [], "samples": [], "boards": [],
        "leakage_source": "", "split": "", "few_shot": 0, "seen_tokens": None, "test_part": "published",
        "prompt_form": "benchmark", "answer_form": "letter", **numbers,
    }  # fmt: skip
    scores = found.get("scores", [])
    found["scores"] = [{"rotation": None, "leaked": None, "clean": None, "also": {}, **row} for row in scores]
    found["asked"], found["warnings"], found["notes"] = asked(found), warnings(numbers), notes(numbers)
    found["leakage"] = leaks(numbers)
    found["exams"] = exams(numbers)
    found["rotated"] = [row for row in found["scores"] if row["rotation"]]
    found["baselines"] = baselines(scores)
    found["shortened"] = shortened(numbers)
    found["lengths"] = lengths(numbers)
    found["boards"] = [board for board in found["boards"] if has_published(board)]
    return found


def pictures(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of one evaluation, or of several: `boards` by id, `scores`, `cases`; a `note` instead of them."""
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError:
        return {"boards": {}, "scores": "", "cases": "", "note": NO_FIGURES}
    rows = [{**row, "label": f"{row['task']} ({row['mode']})"} for row in numbers.get("scores", [])]
    hard = [{**row, "label": f"{row['group']}: {row['task']} ({row['mode']})"} for row in numbers.get("cases", [])]
    return {
        "boards": {board["id"]: score_figures.board(board) for board in numbers.get("boards", [])},
        "scores": score_figures.scores(rows[:DRAWN_ROWS], "scores"),
        "cases": score_figures.scores(hard[:DRAWN_ROWS], "cases that a shortcut gets wrong"),
        "note": "",
    }


def baselines(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """(key, name) of the baselines that any of these rows has."""
    return [(name, label) for name, label in BASELINES.items() if any(name in row["baselines"] for row in rows)]


def asked(numbers: Mapping[str, Any]) -> str:
    """How many answers, and how they came about as far as that is known."""
    told = [
        f"{numbers.get('answers', {}).get('count', 0)} answers",
        f"split of baselines and leakage: {numbers.get('split')}",
        f"answer form: {numbers.get('answer_form')}",
    ]
    if numbers.get("how", "unknown") != "unknown":  # of answers made elsewhere nobody knows the prompts
        form = numbers.get("prompt_form", "benchmark")
        told.append(PROMPTS.get(form, str(form)))
    if numbers.get("few_shot"):
        told.append(f"{few_shot(numbers)} before each question")
    return "; ".join(told)


def few_shot(numbers: Mapping[str, Any]) -> str:
    """`3 solved examples from 2017 (seed 1)`; without a source where the numbers do not name one."""
    source = numbers.get("few_shot_from") or "the training part (examinations: invented ones)"
    told = f"{numbers['few_shot']} solved examples{f' from {source}' if 'few_shot_from' in numbers else ''}"
    return told if numbers.get("seed") is None else f"{told} (seed {numbers['seed']})"


def sample(numbers: Mapping[str, Any]) -> str | None:
    """That only a draw of the questions was asked, if so."""
    most = numbers.get("max_items")
    if not most:
        return None
    return f"SAMPLE: at most {most} questions a task (seed {numbers.get('seed')}), not the benchmark's score"


def warnings(numbers: Mapping[str, Any]) -> list[str]:
    """What changes the meaning of all scores; stands before them."""
    answers = numbers.get("answers", {})
    found = [sample(numbers), OWN_PART if numbers.get("test_part") == "own" else None, *(numbers.get("notes") or ())]
    found += [
        f"{task}: {count} answers are missing and count as wrong"
        for task, count in (answers.get("unanswered") or {}).items()
        if count
    ]
    return [text for text in found if text]


def leaks(numbers: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of the leakage table, one a mode: `leaked` and `clean` have n, score and, of accuracies, Wilson's
    interval."""
    scored = {(row["task"], row["mode"]): row for row in numbers.get("scores", [])}
    plain = {"source": "tuned on", "questions": None, "near": 0, "too_short": None, "passages_leaked": None}
    found = []
    for row in numbers.get("leakage", []):
        by_mode = row.get("scores") or {mode: of for (task, mode), of in scored.items() if task == row["task"]}
        for mode, parts in (by_mode or {"": {}}).items():
            metric = scored.get((row["task"], mode), {}).get("metric")
            told = {name: _part(parts.get(name) or {}, metric) for name in ("leaked", "clean")}
            found.append({**plain, "exact": row.get("known"), **row, "mode": mode, **told})
    return found


def _part(given: Mapping[str, Any], metric: str | None) -> dict[str, Any]:
    from rinsho.tasks.intervals import wilson

    n, value = given.get("n"), given.get("score")
    bounds = wilson(value * n, n) if metric == "accuracy" and n and value is not None else None
    return {"n": n, "score": value, "interval": bounds}


def exams(numbers: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of examinations with `verdict`: yes or no where a whole year was asked and decides it, or undecided."""
    rows = [row for row in numbers.get("scores", []) if "points" in row.get("also", {})]
    found = []
    for row in rows:
        same = [other for other in rows if other["task"] == row["task"]]
        drawn = numbers.get("max_items") and max(other["n"] for other in same) >= numbers["max_items"]
        whole = not drawn and row["also"]["points_total"] == max(other["also"]["points_total"] for other in same)
        decided = whole and has_spread(row["also"].get("points_interval")) and row["also"].get("passes") is not None
        verdict = ("yes" if row["also"]["passes"] else "no") if decided else "undecided"
        found.append({**row, "verdict": verdict})
    return found


def shortened(numbers: Mapping[str, Any]) -> dict[str, int]:
    """Questions of each task whose prompt lost its middle."""
    told = numbers.get("answers", {}).get("shortened_by_task") or {}
    return {task: count for task, count in told.items() if count}


def counted(board: Mapping[str, Any]) -> list[str]:
    """The names of a board's columns with the number of questions of ours; of points every cell tells."""
    ours = [row["counts"] for row in board["rows"] if row["ours"] and "counts" in row]
    names = []
    for place, name in enumerate(board["columns"]):
        counts = sorted({row[place] for row in ours if row[place] is not None})
        told = " to ".join(map(str, counts[:1] + counts[1:][-1:]))
        names.append(f"{name} (n\u00a0{told})" if told and not board["percent"] else name)
    return names


def beside(board: Mapping[str, Any], models: Sequence[str]) -> dict[str, Any]:
    """A board without published rows and without columns that ours were not asked: ours, mode by mode in the order of
    `models`, then chance and baselines."""

    def place(row: Mapping[str, Any]) -> tuple[int, int]:
        # The longest name counts: a row `base-2 (constrained)` is not one of `base`.
        fitting = [name for name in models if row["name"].startswith(name)]
        return MODES.index(row["mode"]), models.index(max(fitting, key=len)) if fitting else len(models)

    ours = sorted((row for row in board["rows"] if row["ours"]), key=place)
    rows = [*ours, *(row for row in board["rows"] if row["how"] in BESIDE)]
    places = [place for place in range(len(board["columns"])) if any(row["cells"][place] for row in ours)]
    parts = ("cells", "values", "intervals", "counts")
    kept = [{**row, **{part: [row[part][p] for p in places] for part in parts if part in row}} for row in rows]
    return {**board, "columns": [board["columns"][place] for place in places], "rows": kept}


def has_published(board: Mapping[str, Any]) -> bool:
    """Whether any published score stands in a board."""
    return any(not row["ours"] and row["how"] not in BESIDE for row in board["rows"])


def lengths(numbers: Mapping[str, Any]) -> list[tuple[str, float | None, float | None]]:
    """(task, mean tokens, mean characters) of the free answers (N3-5)."""
    answers = numbers.get("answers", {})
    tokens, chars = answers.get("mean_free_tokens", {}), answers.get("mean_free_chars", {})
    return [(task, tokens.get(task), chars.get(task)) for task in dict.fromkeys([*tokens, *chars])]


def notes(numbers: Mapping[str, Any]) -> list[str]:
    """What else a reader of the scores has to know: missing baselines, shortened prompts, questions left out."""
    answers = numbers.get("answers", {})
    found = [numbers["training_note"]] if numbers.get("training_note") else []
    found += _training(numbers)
    if count := answers.get("shortened_prompts"):
        by_task = ", ".join(f"{task} {number}" for task, number in shortened(numbers).items())
        found.append(
            f"{count} prompts were longer than the window and lost their middle" + f" ({by_task})" * bool(by_task)
        )
    if count := answers.get("of_unknown_questions"):
        found.append(f"{count} answers are to questions that are not in the data, and were not scored")
    if (mean := answers.get("few_shot_mean")) is not None:
        fewest = answers.get("few_shot_fewest")
        found.append(f"{mean:.1f} solved examples stood before a question on average, at least {fewest}")
    if count := answers.get("dropped_examples"):
        found.append(f"{count} questions got fewer solved examples, since the window was full")
    found += [
        f"{task}: {count} questions that need an image were left out, as in the published scores"
        for task, count in (numbers.get("left_out") or {}).items()
        if count
    ]
    return list(dict.fromkeys(found))


def _training(numbers: Mapping[str, Any]) -> list[str]:
    """The warnings of the split, `task: what is missing`, on tasks that were asked; general advice only with them."""
    tasks = {row["task"] for row in numbers.get("scores", [])}
    found = []
    for manifest in numbers.get("training", []):
        heads = [(warning.partition(":")[0], warning) for warning in manifest["warnings"]]
        told = [warning for head, warning in heads if head in tasks or " " in head]
        found += told if any(head in tasks for head, _ in heads) else []
    return found


def writable(text: str) -> str:
    r"""Text that a file can hold and a terminal can show: an answer may hold half a character, or orders to a terminal.

    >>> writable("肺\ud83d炎\x1b[2J\u202e")
    '肺?炎�[2J�'
    """
    return NOT_SHOWN.sub("\ufffd", text.encode("utf-8", "replace").decode("utf-8"))


def score(value: float | None, form: str = ".3f") -> str:
    """A score with three decimals, or a dash."""
    return "-" if value is None else format(value, form)


def interval(pair: Sequence[float] | None, percent: bool = False, form: str = ".3f") -> str:
    """A 95 % interval, or a dash; of one without width only that it has none.

    >>> interval([0.51, 0.62]), interval([0.51, 0.62], percent=True), interval([-0.1, 0.2], form=".2f"), interval(None)
    ('0.510-0.620', '51-62%', '-0.10 to 0.20', '-')
    >>> interval([0.0, 0.0])
    '(no spread)'
    """
    if not pair:
        return "-"
    if not has_spread(pair):
        return NO_SPREAD
    if percent:
        return f"{100 * pair[0]:.0f}-{pair[1]:.0%}"
    return format(pair[0], form) + (" to " if pair[0] < 0 or "+" in form else "-") + format(pair[1], form)


def has_spread(pair: Sequence[float] | None) -> bool:
    """Whether there is an interval and it has a width: that of a bootstrap has none where all answers are alike."""
    return pair is not None and len(pair) == 2 and pair[1] - pair[0] > 1e-9


def is_sure(row: Mapping[str, Any]) -> bool:
    """Whether the whole interval of a row of scores lies above chance."""
    return bool(row["above_chance"]) and has_spread(row["interval"])


def one_line(answer: str) -> str:
    r"""An answer in one line of at most 200 characters.

    >>> one_line("肺炎\n\nA"), one_line("\n" * 203)[-20:]
    ('肺炎\\n\\nA', ' (3 characters more)')
    """
    text = answer[:SAMPLE_CHARS].replace("\\", "\\\\")
    for sign, shown in (("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t")):
        text = text.replace(sign, shown)
    more = len(answer) - SAMPLE_CHARS
    if more <= 0:
        return text
    return f"{text} … ({'at least ' if len(answer) >= KEPT_CHARS else ''}{more} characters more)"
