"""`report.html` of an analysis: one page with all chapters that opens offline, maps and figures as files beside it."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from rinsho import score_page
from rinsho.analyse.inputs import config_of, read_json
from rinsho.analyse.part import Part
from rinsho.learned_from import learned_from
from rinsho.model_folder import read_manifest
from rinsho.progress import amount, duration

EMBEDDED = "map_"  # pages of this kind are shown inside the report, too


def write(path: Path, name: str, facts: Sequence[tuple[str, str]], chapters: Sequence[Mapping[str, Any]]) -> Path:
    """Writes the page and returns its path.

    Args:
        path: the file; each chapter's files lie beside it in a folder of the chapter's id.
        name: of the model.
        facts: of the model, as (name, value).
        chapters: `id`, `title`, `part` (None where it could not be made), `problem` (why not).
    """
    return score_page.render(__package__, path, name=name, facts=facts, chapters=chapters, embedded=EMBEDDED)


@functools.cache
def _environment() -> Any:
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    shown = (amount, duration, score_page.score, score_page.interval)
    environment.filters |= {function.__name__: function for function in shown}
    return environment


def fragment(template: str, **values: Any) -> str:
    """A chapter's HTML from a template of this package, with all text from outside escaped."""
    text = resources.files("rinsho.analyse").joinpath(template).read_text(encoding="utf-8")
    return score_page.writable(_environment().from_string(text).render(**values))


def facts_of(model: Path) -> list[tuple[str, str]]:
    """What the files of a model or adapter folder say of it, as (name, value); nothing is loaded."""
    manifest, config = read_manifest(model), config_of(model)
    adapter = read_json(model / "adapter_config.json")
    parameters = manifest.get("parameters")
    base = manifest.get("base")
    rows: list[tuple[str, Any]] = [
        ("stage", manifest.get("stage")),
        ("kind", f"adapter ({adapter.get('peft_type', '')})" if adapter else config.get("model_type")),
        ("parameters" + (" of the adapter" if adapter else ""), None if parameters is None else f"{parameters:,}"),
        ("layers", config.get("num_hidden_layers")),
        ("width", config.get("hidden_size")),
        ("attention heads", _heads(config)),
        ("vocabulary", _number(config.get("vocab_size"))),
        ("window", _number(config.get("max_position_embeddings"))),
        ("seen tokens", _number(manifest.get("seen_tokens"))),
        ("base", _base(base) if isinstance(base, dict) else adapter.get("base_model_name_or_path")),
        ("tuned with", _tuned(manifest.get("finetune"))),
        ("held-out loss", score_page.score(manifest.get("validation_loss")) if "validation_loss" in manifest else None),
        ("learned from", _sources(model)),
    ]
    return [(name, str(value)) for name, value in rows if value not in (None, "")]


def markdown(name: str, facts: Sequence[tuple[str, str]], chapters: Sequence[Mapping[str, Any]]) -> str:
    """The report for people in a terminal; no answers of the model."""
    lines = [f"# Analysis of {name}", "", "| | |", "| --- | --- |", *(f"| {key} | {value} |" for key, value in facts)]
    for chapter in chapters:
        part: Part | None = chapter["part"]
        lines += ["", f"## {chapter['title']}", ""]
        lines.append(part.markdown.strip() if part else f"Not made: {chapter['problem']}.")
    return "\n".join(lines) + "\n"


def _number(value: Any) -> str | None:
    return f"{value:,}" if isinstance(value, int) else None


def _heads(config: Mapping[str, Any]) -> str | None:
    heads, own = config.get("num_attention_heads"), config.get("num_key_value_heads")
    return None if heads is None else f"{heads}" if own in (None, heads) else f"{heads} ({own} of keys and values)"


def _base(base: Mapping[str, Any]) -> str:
    seen, steps = base.get("seen_tokens"), base.get("steps")
    about = [f"{seen:,} tokens" if seen else "", f"{steps:,} steps" if steps else ""]
    told = [str(base.get("name") or base.get("stage") or ""), ", ".join(filter(None, about))]
    return ": ".join(filter(None, told))


def _tuned(tuned: Any) -> str | None:
    if not isinstance(tuned, dict):
        return None
    template = (tuned.get("prompt_template") or {}).get("name")
    told = [tuned.get("objective"), template and f"prompt template {template}"]
    return ", ".join(str(part) for part in told if part)


def _sources(model: Path) -> str | None:
    """The largest sources by name; the card has all of them with their licences."""
    rows = [source for row in learned_from(model) for source in row["sources"] or ()]
    rows.sort(key=lambda row: -(row.get("tokens") or 0))
    named = [f"{row['source']} ({amount(row['tokens'])} tokens)" for row in rows[:5] if row.get("tokens")]
    more = [f"{len(rows) - len(named)} more"] if len(rows) > len(named) and named else []
    return ", ".join(named + more) or None
