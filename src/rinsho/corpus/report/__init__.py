"""The report of a corpus run: numbers for programs, Markdown for the terminal, and one page to open offline.

What it says is worked out in `report.view`; this module writes it down, and writes it anew for a finished run.

Source: SPEC N2.1-7.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rinsho.corpus.report import view
from rinsho.errors import UserError
from rinsho.progress import duration
from rinsho.run import Report, read_done, write_atomic

if TYPE_CHECKING:
    from rinsho.corpus import Recipe


@dataclass(frozen=True)
class FinishedRun:
    """A finished corpus run as it lies on the disk; `settings` may be those of an older version."""

    folder: Path
    settings: dict[str, Any]
    numbers: dict[str, Any]
    products: dict[str, Any]  # relative path -> hash and size_bytes
    seconds: float | None

    @property
    def title(self) -> str:
        """A name for people."""
        return title_of(self.folder)

    def files(self, folder: str) -> list[Path]:
        """The document files of `shards`, `validation` or `dropped`, each as the run wrote it.

        Raises:
            UserError: one is missing or has another size.
        """
        names = [
            name for name in sorted(self.products) if name.startswith(f"{folder}/") and name.endswith(".jsonl.zst")
        ]
        for name in names:
            path = self.folder / name
            if not path.is_file() or path.stat().st_size != self.products[name]["size_bytes"]:
                raise UserError(
                    "a product is missing or was changed",
                    where=path,
                    expected="the files that the run wrote",
                    todo="copy the whole folder, or run the stage again",
                )
        return [self.folder / name for name in names]


def title_of(folder: Path) -> str:
    """The name of a run for people: of the run folder above, since the folder itself is mostly called corpus."""
    folder = folder.resolve()
    return folder.parent.name if folder.name == "corpus" else folder.name


def make_report(recipe: Recipe | Mapping[str, Any], numbers: dict[str, Any]) -> Report:
    """The numbers with their Markdown. Bytes are UTF-8 text; those of dropped documents are before cleaning."""
    return Report(numbers, _markdown(view.settings_of(recipe), numbers))


def page(
    recipe: Recipe | Mapping[str, Any], numbers: Mapping[str, Any], *, title: str, seconds: float | None = None
) -> str:
    """The report as one HTML page that needs nothing else: no network, no scripts.

    Args:
        recipe: the settings of the run, or what is left of those of an older version.
        numbers: `report.json`'s numbers; missing keys are sections left out.
        title: the name of the run.
        seconds: how long it took.
    """
    import jinja2

    from rinsho.corpus.report import charts

    settings = view.settings_of(recipe)
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {"size": view.size, "percent": view.percent, "plain": view.plain, "count": _count}
    template = resources.files("rinsho.corpus.report").joinpath("page.html.j2").read_text(encoding="utf-8")
    sources, lengths = view.source_rows(numbers), view.length_rows(numbers)
    mode, personal = view.personal_rows(settings, numbers)
    return environment.from_string(template).render(
        title=view.plain(title),
        seconds=None if seconds is None else duration(seconds),
        numbers=numbers,
        summary=view.summary(settings, numbers),
        warnings=view.warnings(settings, numbers),
        funnel=view.funnel(settings, numbers),
        sources=sources,
        shares=charts.shares(sources),
        synthetic=view.all_synthetic(numbers) if (numbers.get("synthetic") or {}).get("documents_kept") else None,
        tokens=numbers.get("tokens"),
        lengths=lengths,
        histogram=charts.histogram(lengths),
        personal_mode=mode,
        personal=personal,
        cleaning=_cleaning(numbers),
        notes=view.notes(settings, numbers),
        examples=[
            (reason, _command(reason) if reason in numbers.get("dropped", {}) else "", rows)
            for reason, rows in view.example_rows(settings, numbers)
        ],
    )


def read_run(run: Path) -> FinishedRun:
    """A finished corpus run; the folder of a whole `rinsho all` run stands for the corpus in it.

    Raises:
        UserError: not there, another stage's, not finished, or its report cannot be read.
    """
    run = Path(run)
    if not (run / "manifest.json").exists() and (run / "corpus" / "manifest.json").exists():
        run = run / "corpus"
    expected = "the --out folder of a finished rinsho corpus"
    if not run.is_dir():
        raise UserError("not there", where=run, expected=expected, todo="check the path")
    try:
        manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UserError("not a run folder", where=run, expected=expected, todo="check the path") from None
    if not isinstance(manifest, dict) or manifest.get("stage") != "corpus":
        stage = manifest.get("stage") if isinstance(manifest, dict) else None
        raise UserError(f"a run of {view.plain(stage)}", where=run, expected=expected, todo="check the path")
    done = read_done(run)
    if done is None:
        raise UserError(
            "this run has not finished", where=run, expected="a DONE file in it", todo="run it again: it continues"
        )
    try:
        numbers = json.loads((run / "report.json").read_text(encoding="utf-8"))["numbers"]
        settings = _read_settings(run)
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            "report.json or recipe.resolved.yaml cannot be read",
            where=run,
            expected="the files that the run wrote",
            todo="copy the whole folder again",
        ) from None
    return FinishedRun(run, settings, numbers, done["products"], manifest.get("seconds"))


def rewrite(run: Path) -> Report:
    """Writes report.json, report.md and report.html of a finished run anew from its numbers.

    Raises:
        UserError: as `read_run`.
    """
    found = read_run(run)
    return save(found, found.numbers)


def save(run: FinishedRun, numbers: dict[str, Any]) -> Report:
    """Writes the three files of the report with these numbers; DONE and the products stay as they are."""
    report = make_report(run.settings, numbers)
    raw = json.dumps({"numbers": report.numbers, "markdown": report.markdown}, ensure_ascii=False, indent=2)
    write_atomic(run.folder / "report.json", raw + "\n")
    write_atomic(run.folder / "report.md", report.markdown)
    write_atomic(run.folder / "report.html", page(run.settings, numbers, title=run.title, seconds=run.seconds))
    return report


def _read_settings(run: Path) -> dict[str, Any]:
    import yaml

    try:
        settings = yaml.safe_load((run / "recipe.resolved.yaml").read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError from error
    if not isinstance(settings, dict):
        raise ValueError
    return settings


def _markdown(settings: Mapping[str, Any], numbers: Mapping[str, Any]) -> str:
    mode, personal = view.personal_rows(settings, numbers)
    counts = ": " + ", ".join(f"{kind} {count:,}" for kind, count in personal) if personal else ""
    lines = [
        _escaped(view.summary(settings, numbers)),
        "",
        *(f"**WARNING: {_escaped(warning)}**\n" for warning in view.warnings(settings, numbers)),
        *_funnel(view.funnel(settings, numbers)),
        *_sources(view.source_rows(numbers), numbers),
        *_lengths(view.length_rows(numbers)),
        f"Personal data {mode}{counts}. Names, patient numbers and dates are not looked for.",
        "",
        *(f"{title}: {_escaped(sentence)}\n" for title, sentence in view.notes(settings, numbers)),
        *_table(
            ("cleaning rule", "places changed"),
            ((_escaped(view.plain(rule)), f"{count:,}") for rule, count, _ in _cleaning(numbers)),
        ),
        *_examples(view.example_rows(settings, numbers)),
    ]
    return "\n".join(lines).rstrip("\n") + "\n"


def _funnel(steps: Sequence[view.Step]) -> list[str]:
    rows = []
    for step in steps:
        meaning = _escaped(step.meaning) + (f" ({_escaped(step.setting)})" if step.setting else "")
        size = "" if step.size_bytes is None else view.size(step.size_bytes)
        if step.label in ("found", "read") and not step.reason:
            rows.append((step.label, f"{step.documents:,}", size, "", meaning))
        elif step.label == "kept" and not step.reason:
            share = view.percent(step.share)
            rows.append(("kept, after cleaning", f"{step.documents:,}", size, share, "of what was read"))
        elif step.label == "cleaning" and not step.reason:
            rows.append(("cleaning of the kept", "", view.size(-(step.size_bytes or 0)), "", "white space, notation …"))
        else:
            label = f"dropped: {_escaped(view.plain(step.label))}" if step.reason else step.label
            gone = f"-{size}" if step.size_bytes else size
            rows.append((label, f"-{step.documents:,}", gone, view.percent(step.share), meaning))
    return _table(("step", "documents", "size", "of the rest", "meaning (setting)"), rows, last_is_text=True)


def _sources(rows: Sequence[view.SourceRow], numbers: Mapping[str, Any]) -> list[str]:
    tokens = numbers.get("tokens")
    synthetic = bool((numbers.get("synthetic") or {}).get("documents_kept"))
    header = ["source", "documents read", "kept", "size kept", "share"]
    table = []
    for row in rows:
        cells = [_escaped(row.name), f"{row.documents_read:,}", f"{row.documents_kept:,}", view.size(row.bytes_kept)]
        cells.append(view.percent(row.share_of_bytes))
        if tokens:
            cells.append(("about " if row.estimated else "") + _count(row.tokens))
            cells += [view.percent(row.share_of_tokens), _count(row.characters_per_token)]
        if synthetic:
            cells += [view.percent(row.synthetic), *([view.percent(row.synthetic_tokens)] if tokens else [])]
        table.append(cells)
    header += ["tokens", "share", "characters per token"] if tokens else []
    header += ["synthetic", *(["of the tokens"] if tokens else [])] if synthetic else []
    lines = _table(header, table)
    if tokens and lines:
        name, fingerprint = (_escaped(view.plain(tokens.get(key))) for key in ("tokenizer", "fingerprint"))
        lines += [
            f"Tokens by {name} (vocabulary {_count(tokens.get('vocab_size'))}, fingerprint {fingerprint}): "
            f"{_count(tokens.get('tokens'))}, {_count(tokens.get('characters_per_token'))} characters a token.",
            "",
        ]
    return lines


def _lengths(rows: Sequence[tuple[int, int | None, int, int]]) -> list[str]:
    names = (f"{start:,} and more" if end is None else f"{start:,} to {end - 1:,}" for start, end, *_ in rows)
    cells = ((name, f"{read:,}", f"{kept:,}") for name, (*_, read, kept) in zip(names, rows, strict=True))
    return _table(("characters", "documents read", "kept"), cells)


def _examples(rows: Sequence[tuple[str, Sequence[tuple[str, str]]]]) -> list[str]:
    cells = (
        (_escaped(view.plain(reason)), ", ".join(f"{_escaped(name)} ({_escaped(value)})" for name, value in found))
        for reason, found in rows
    )
    lines = _table(("reason", "examples: id (value)"), cells, last_is_text=True)
    return [*lines, f"To read some of them: {_command('REASON')}", ""] if lines else []


def _table(header: Sequence[str], rows: Iterable[Sequence[str]], last_is_text: bool = False) -> list[str]:
    """A table whose first column, and perhaps its last, is text; nothing without rows."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    ruler = ["---", *["---:"] * (len(header) - 1)]
    if last_is_text:
        ruler[-1] = "---"
    return [f"| {' | '.join(header)} |", f"|{'|'.join(ruler)}|", *lines, ""] if lines else []


def _cleaning(numbers: Mapping[str, Any]) -> list[tuple[str, int, str]]:
    counts = numbers.get("cleaning") or {}
    return [(rule, counts[rule], view.CLEANING.get(rule, "")) for rule in sorted(counts, key=lambda r: (-counts[r], r))]


def _command(reason: str) -> str:
    return f"rinsho corpus inspect RUN --reason {shlex.quote(view.plain(reason))}"


def _count(number: float | None) -> str:
    if number is None:
        return "-"
    return f"{number:.2f}" if isinstance(number, float) else f"{number:,}"


def _escaped(text: str) -> str:
    r"""Text that Markdown shows as it is, also inside a table.

    >>> _escaped("a|b <script> [x](y) wiki_40b")
    'a\\|b &lt;script> \\[x\\](y) wiki_40b'
    """
    return re.sub(r"([\\`*\[\]|])", r"\\\1", text.replace("&", "&amp;").replace("<", "&lt;"))
