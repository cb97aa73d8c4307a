"""Analogies in the embedding space: the report's five, one's own, and a test list with its chance levels."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from rinsho.analyse.analogy_scores import FEWEST, Result, Row, evaluate, is_list, read_list
from rinsho.analyse.analogy_space import Answer, Candidates, Space, added, find, neighbours, parse, space, unit, vector
from rinsho.analyse.embeddings import Source, read
from rinsho.analyse.inputs import check_model
from rinsho.analyse.part import Part, write_csv
from rinsho.errors import UserError
from rinsho.fonts import HOW
from rinsho.recipe import Settings
from rinsho.score_page import NO_FIGURES, score

# The report's Appendix A.3 in today's characters (its text has 腦, 臟, 轉), with its figures.
REPORT: dict[str, tuple[tuple[str, float], ...]] = {
    "脳出血 - 脳 + 消化管": (
        ("消化管出血", 0.85), ("脳内出血", 0.64), ("脳血管障害", 0.63), ("血便", 0.62), ("胃潰瘍", 0.61),
    ),
    "尿路結石 - 尿路 + 胆管": (
        ("結石", 1.00), ("胆石", 0.97), ("胆石症", 0.96), ("尿管結石", 0.94), ("胆管結石", 0.92),
    ),
    "脳卒中 - 脳 + 心臓": (
        ("心疾患", 0.99), ("心不全", 0.95), ("脳梗塞", 0.85), ("急性心筋梗塞", 0.84), ("不整脈", 0.82),
    ),
    "脳梗塞 - 脳 + 心臓": (
        ("心不全", 1.00), ("筋梗塞", 1.00), ("梗塞", 1.00), ("心疾患", 1.00), ("急性心筋梗塞", 0.96),
    ),
    "大腸癌 - 大腸 + 肝臓": (
        ("肝細胞癌", 1.00), ("肝癌", 1.00), ("肝転移", 0.95), ("肝障害", 0.92), ("胃癌", 0.88),
    ),
}  # fmt: skip
PERMUTATIONS = 20


class AnalogySettings(Settings):
    """Settings of the analogies."""

    expressions: tuple[str, ...] = Field(
        (), description="further expressions beside the report's five, for instance 脳出血 - 脳 + 消化管 (NA-2)"
    )
    file: Path | None = Field(
        None, description="test list with the columns a, b, c, answers, relation; null: the built-in one (NA-2)"
    )
    count: int = Field(10, ge=1, le=1000, description="neighbours of each expression")
    source: Source = Field("input", description="the input embedding or the output head")
    unit_length: bool = Field(
        True, description="every token counts alike in sums and means; false: vectors as the model has them"
    )
    centred: bool = Field(
        True, description="the mean of all possible answers is taken away first; false: tokens that share much are near"
    )
    keep_own: bool = Field(False, description="tokens of the question's own words may be answers")
    candidates: Candidates = Field(
        "words", description="words: tokens with a letter or digit can be answers; all: every token of text"
    )
    permutations: int = Field(
        PERMUTATIONS, ge=0, description="permuted vocabularies under which the test list is asked again"
    )


def analogies(model: Path, folder: Path, settings: AnalogySettings, seed: int) -> Part:
    """The chapter on analogies.

    Args:
        model: model or adapter folder.
        folder: gets `neighbours.csv`, `rows.csv`, `relations.csv` and, with matplotlib, a figure.
        settings: see there.
        seed: of the permuted vocabularies.

    Raises:
        UserError: no embeddings or tokenizer, an expression or a list that cannot be read.

    Source: NA-2.
    """
    from rinsho.analyse.page import fragment

    rows = read_list(settings.file)
    check_expressions(settings.expressions)
    where = open_space(model, settings)
    shown = [_shown(where, text, settings.count) for text in dict.fromkeys([*REPORT, *settings.expressions])]
    results, summaries = evaluate(where, rows, settings.permutations, seed)
    tables = {"neighbours.csv": _neighbour_rows(shown), "rows.csv": map(_result_row, results),
              "relations.csv": map(_flat, summaries)}  # fmt: skip
    files = [_write(folder / name, list(table)) for name, table in tables.items()]
    svg, rem, note, drawn = _figure(summaries, folder)
    values = {
        "candidates": len(where.candidates),
        "unit_length": settings.unit_length,
        "centred": settings.centred,
        "keep_own": settings.keep_own,
        "source": settings.source,
        "permutations": settings.permutations,
        "named": settings.file.name if settings.file else "built in",
    }
    return Part(
        "analogies",
        "Analogies",
        fragment(
            "analogy.html.j2", shown=shown, summaries=summaries, svg=svg, rem=rem, note=note, fewest=FEWEST, **values
        ),
        {**values, "expressions": shown, "relations": summaries},
        markdown(shown, summaries),
        (*files, *drawn),
    )


def command(model: Path, expressions: Sequence[str] = (), file: Path | None = None, count: int = 10) -> str:
    """What `rinsho analyse analogy` prints: the neighbours of each expression with their cosine.

    Without expressions or a file the report's five with its answers beside. A file gives a tab-separated table: one
    with the columns a, b, c, answers is put as a test list with its accuracy, any other is an expression a line.

    Raises:
        UserError: no model folder, embeddings or tokenizer, or an expression or a file that cannot be read.

    Source: NA-2.
    """
    check_expressions(expressions, "")
    check_model(model)
    rows = read_list(file) if file is not None and is_list(file) else None
    lines = _expressions(file) if file is not None and rows is None else []
    where = open_space(model, AnalogySettings.model_validate({}))
    asked = list(expressions) or ([] if file is not None else list(REPORT))
    parts = [as_text(_shown(where, text, count)) for text in asked]
    if rows is not None:
        parts.append(_list_table(where, rows))
    if lines:
        answers = [neighbours(where, text, count) for text in lines]
        parts.append("\n".join(["expression\tmedian of all\t95 % of all\tneighbours", *map(_table_line, answers)]))
    return "\n\n".join(parts)


def check_expressions(expressions: Sequence[str], setting: str = "analyse.analogies.expressions") -> None:
    """Every one parsed.

    Raises:
        UserError: the first that is none, named with the setting that it stands in.
    """
    for expression in expressions:
        parse(expression, f"{setting}: {expression!r}" if setting else None)


def open_space(model: Path, settings: AnalogySettings) -> Space:
    """The embedding space of a model folder."""
    from rinsho.generate.loading import load_tokenizer

    embeddings = read(model, settings.source)
    return space(
        embeddings, load_tokenizer(model),
        unit_length=settings.unit_length, centred=settings.centred, keep_own=settings.keep_own,
        candidates=settings.candidates,
    )  # fmt: skip


def as_text(shown: Mapping[str, Any]) -> str:
    """An expression and its neighbours for the terminal."""
    lines = [shown["expression"]]
    lines += [f"  {word['text']}: {word['how']}" for word in shown["words"] if word["how"] != "one token"]
    if shown["problem"]:
        return "\n".join([*lines, f"  no answer: {shown['problem']}"])
    for place, row in enumerate(shown["rows"]):
        line = f"  {row['cosine']:5.2f}  {row['token']}"
        if place < len(shown["report"]):
            theirs = shown["report"][place]
            line += f"    (report: {theirs['token']} {theirs['figure']:.2f}; here {_cosine(theirs['cosine'])})"
        lines.append(line)
    lines.append(f"  all tokens: half below {shown['median']:.2f}, 95 % below {shown['high']:.2f}")
    lines.append(f"  left out: {', '.join(shown['left_out']) or 'nothing'}")
    return "\n".join(lines)


def markdown(shown: Sequence[Mapping[str, Any]], summaries: Sequence[Mapping[str, Any]]) -> str:
    """The chapter in a few lines."""
    lines = ["| expression | nearest | median, 95 % of all tokens | the report's |", "|---|---|---|---|"]
    for each in shown:
        near = ", ".join(f"{row['token']} {row['cosine']:.2f}" for row in each["rows"][:5]) or each["problem"]
        theirs = ", ".join(f"{row['token']} {row['figure']:.2f}" for row in each["report"])
        all_ = "-" if each["problem"] else f"{each['median']:.2f}, {each['high']:.2f}"
        lines.append(f"| {_cell(each['expression'])} | {_cell(near)} | {all_} | {_cell(theirs)} |")
    lines += ["", *_accuracy(summaries)]
    return "\n".join(lines) + "\n"


def _accuracy(summaries: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = [
        "| relation | answerable | top 1 | top 5 | 95 % | c alone | permuted | chance | p |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in summaries:
        low, high = row["interval_top5"] or (None, None)
        cells = [
            f"{row['answerable']} of {row['rows']}", _share(row["top1"]), _share(row["top5"]),
            f"{_share(low)} to {_share(high)}" if low is not None else "-",
            *(_share(row[f"{kind}_top5"]) for kind in ("alone", "permuted", "chance")),
            score(row["p"] if row["p_holm"] is None else row["p_holm"], ".3f"),
        ]  # fmt: skip
        lines.append(f"| {_cell(row['relation'] or '-')} | {' | '.join(cells)} |")
    return lines


def _figure(summaries: Sequence[Mapping[str, Any]], folder: Path) -> tuple[str, float, str, list[str]]:
    """Element and width of the figure, what is to be said of it, and its files."""
    if importlib.util.find_spec("matplotlib") is None:
        return "", 0.0, NO_FIGURES, []
    from rinsho.analyse.analogy_figure import draw

    svg, rem, files = draw(summaries, folder)
    if not files:
        return svg, rem, "No figure: no row can be answered.", files
    return (
        svg,
        rem,
        "" if len(files) > 1 else f"The figure is SVG alone: no font has its Japanese names ({HOW}).",
        files,
    )


def _shown(where: Space, expression: str, count: int) -> dict[str, Any]:
    """An answer as JSON has it, with the report's beside where it has one."""
    answer = neighbours(where, expression, count)
    return {
        "expression": answer.expression,
        "words": [{"text": word.text, "how": word.how} for word in answer.words],
        "rows": [row._asdict() for row in answer.rows],
        "left_out": list(answer.left_out),
        "problem": answer.problem,
        "median": None if answer.problem else answer.median,
        "high": None if answer.problem else answer.high,
        "report": [
            {"token": token, "figure": figure, "cosine": _cosine_to(where, answer, token)}
            for token, figure in REPORT.get(answer.expression, ())
        ],
    }


def _cosine_to(where: Space, answer: Answer, text: str) -> float | None:
    """The cosine between an expression's sum and a word, whether it can be an answer or not."""
    word = find(where, text)
    if answer.problem or word.problem:
        return None
    total = added(where, [term.sign for term in parse(answer.expression)], [each.ids for each in answer.words])
    return float(total @ unit(vector(where, word.ids)))


def _list_table(where: Space, rows: Sequence[Row]) -> str:
    results, summaries = evaluate(where, rows, PERMUTATIONS, 1)
    table = [_result_row(result) for result in results]
    lines = ["\t".join(table[0]), *("\t".join(map(str, row.values())) for row in table)]
    return "\n".join([*lines, "", *_accuracy(summaries)])


def _table_line(answer: Answer) -> str:
    if answer.problem:
        return "\t".join([answer.expression, "", "", answer.problem])
    found = [f"{row.token} {row.cosine:.2f}" for row in answer.rows]
    return "\t".join([answer.expression, f"{answer.median:.2f}", f"{answer.high:.2f}", *found])


def _expressions(file: Path) -> list[str]:
    """The lines of a file, each checked; empty ones and those that begin with # are left out."""
    found = []
    for number, line in enumerate(file.read_text(encoding="utf-8-sig").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        parse(line, f"{file}:{number}")
        found.append(line.strip())
    if not found:
        raise UserError("no expressions in here", where=file, expected="an expression a line, or a test list")
    return found


def _neighbour_rows(shown: Sequence[Mapping[str, Any]]) -> Iterable[dict[str, Any]]:
    for each in shown:
        for place in range(max(len(each["rows"]), len(each["report"]))):
            own = each["rows"][place] if place < len(each["rows"]) else {}
            theirs = each["report"][place] if place < len(each["report"]) else {}
            yield {
                "expression": each["expression"], "place": place + 1, "token": own.get("token", ""),
                "id": own.get("id", ""), "cosine": _rounded(own.get("cosine")),
                "median_of_all": _rounded(each["median"]), "high_of_all": _rounded(each["high"]),
                "report": theirs.get("token", ""),
                "report_figure": theirs.get("figure", ""), "report_word_here": _rounded(theirs.get("cosine")),
            }  # fmt: skip


def _result_row(result: Result) -> dict[str, Any]:
    answered = not result.problem
    return {
        **result.row._asdict(),
        "answers": "|".join(result.row.answers),
        "found": result.found,
        "cosine": _rounded(result.cosine) if answered else "",
        "rank": result.rank if answered else "",
        "rank_of_c_alone": result.rank_alone if answered else "",
        "all_one_token": int(result.whole) if answered else "",
        "problem": result.problem,
    }


def _flat(summary: Mapping[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for name, value in summary.items():
        if name.startswith("interval"):
            row[f"{name}_low"], row[f"{name}_high"] = map(_rounded, value or (None, None))
        else:
            row[name] = _rounded(value) if isinstance(value, float) or value is None else value
    return row


def _write(path: Path, table: Sequence[Mapping[str, Any]]) -> str:
    return write_csv(path, list(table[0]), [list(row.values()) for row in table])


def _rounded(value: float | None) -> float | str:
    return "" if value is None else round(value, 6)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _cosine(value: float | None) -> str:
    return "not representable" if value is None else f"{value:.2f}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
