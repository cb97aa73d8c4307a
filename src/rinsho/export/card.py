"""The model card: README.md of an export, with Hugging Face's front matter, written from what the folders recorded.

Nothing is invented: what no folder says is said to be not recorded. The card names no path and no host.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from rinsho import __version__
from rinsho.export import card_scores, modelfile, runtimes
from rinsho.export.cells import NOT_RECORDED, cell, figure, listed, plain
from rinsho.export.licensing import License, license_of
from rinsho.export.provenance import Provenance, Stage
from rinsho.files import write_atomic
from rinsho.learned_from import CARD, added

KINDS = {"pretrain": "Pre-training", "finetune": "Tuning", "unknown": "A model from elsewhere", "base": "Base model"}
# Settings that a reader compares models by; every other one stands in the run folder's recipe.resolved.yaml.
SETTINGS = (
    "objective", "optimizer", "learning_rate", "muon_learning_rate", "schedule", "warmup_steps", "weight_decay",
    "epochs", "max_tokens", "sequence_length", "batch_tokens", "pack", "class_balance", "task_weights", "neftune_alpha",
    "residual_dropout", "dtype", "quantization", "save_dtype", "seed",
)  # fmt: skip
PACKAGES = ("torch", "transformers", "tokenizers", "fugashi", "ipadic")
NO_MODEL = "model not named"
FIGURES = {"top1": "same first choice", "mean_kl": "mean KL", "largest_kl": "largest KL"}


def write_card(folder: Path, provenance: Provenance, export: Mapping[str, Any]) -> None:
    """Writes README.md, and `Modelfile` where Ollama would read texts as rinsho does.

    Args:
        folder: of the export.
        provenance: of the model (`rinsho.export.provenance.read`).
        export: `to`, `flavour`, `types`, `files` (name, type, size_bytes, checks), `dtype`, `checks`,
            `tokenizer_inside`, `exact_inside`, `architecture`, `parameters`, `max_position_embeddings`, `chat`,
            `numbers` (stored ones), `title`, `license`; `base_model`, the name of a published base, may be among them.

    Source: neither 4.
    """
    if _has_modelfile(provenance, export):
        license_ = license_of(export.get("license"), provenance.data)
        modelfile.write(folder, export, _license_line(license_), _ternary(provenance, export))
    write_atomic(folder / CARD, text(provenance, export))


def text(provenance: Provenance, export: Mapping[str, Any]) -> str:
    """The card as Markdown."""
    from jinja2 import Environment, StrictUndefined

    license_ = license_of(export.get("license"), provenance.data)
    ternary = _ternary(provenance, export)
    source = resources.files("rinsho.export").joinpath("card.md.j2").read_text(encoding="utf-8")
    page = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False)  # noqa: S701
    body = page.from_string(source).render(
        title=cell(export.get("title") or "A clinical language model"),
        front=_front(export, license_),
        p=provenance,
        export=export,
        version=__version__,
        form=_form(provenance, export),
        sizes=_sizes(provenance, export),
        files=[_file(row) for row in export.get("files") or ()],
        checks=_checks(export),
        looked_at=_looked_at(export.get("checks") or {}),
        inside=_inside(export.get("tokenizer_inside") or {}),
        runtimes=runtimes.table(export, provenance.ours, provenance.our_tokenizer, ternary),
        modelfile=_has_modelfile(provenance, export),
        first_file=cell(export["files"][0]["name"]) if export.get("files") else "model.gguf",
        ollama_file=modelfile.file_of(export["files"], ternary) if export.get("files") else "model.gguf",
        data=[_learned(row) for row in provenance.data],
        license=license_,
        license_line=_license_line(license_),
        terms={term: listed(places) for term, places in license_.terms.items()},
        unknown=listed(license_.unknown),
        not_judged=listed(license_.not_judged),
        writers=listed(_writers(provenance.data)),
        stages=[_stage(stage) for stage in provenance.stages],
        splits=[_split(row) for row in provenance.tuned.get("splits", ())],
        warnings=[cell(row) for split in provenance.tuned.get("splits", ()) for row in split.get("warnings", ())],
        asking=_asking(provenance),
        evaluations=[card_scores.view(each) for each in provenance.evaluations],
        poor=card_scores.poor(provenance.evaluations),
    )
    return body.strip() + "\n"


# ---------------------------------------------------------------------- head


def _front(export: Mapping[str, Any], license_: License) -> str:
    gguf = export["to"] == "gguf"
    tags = ["medical", "clinical", "japanese", "rinsho"]
    tags += ["gguf"] if gguf else [str(export["architecture"]) if export["to"] == "hf" else "llama"]
    front: dict[str, Any] = {**license_.front, "language": ["ja"]}
    front |= {"library_name": "gguf" if gguf else "transformers", "pipeline_tag": "text-generation"}
    front["tags"] = list(dict.fromkeys(tags))
    if export.get("base_model"):
        front["base_model"] = str(export["base_model"])
    return yaml.safe_dump(front, allow_unicode=True, sort_keys=False).rstrip()


def _form(provenance: Provenance, export: Mapping[str, Any]) -> str:
    to = export["to"]
    if to == "gguf":
        return f"GGUF, flavour `{export.get('flavour') or 'llama'}`"
    kind = "as a Llama with biases (`mlp_bias`)" if to == "llama" and provenance.ours else f"`{export['architecture']}`"
    return f"safetensors in {export.get('dtype')}, {kind}"


def _sizes(provenance: Provenance, export: Mapping[str, Any]) -> list[tuple[str, str]]:
    config = provenance.config
    block = "MLP without a gate, SiLU" if provenance.ours else f"`{config.get('model_type', NOT_RECORDED)}`"
    heads = (
        f"{config.get('num_attention_heads', '?')} heads, {config.get('num_key_value_heads', '?')} of keys and values"
    )
    known = [
        ("parameters", export.get("parameters"), ","),
        ("window, tokens", export.get("max_position_embeddings"), ","),
        ("layers", config.get("num_hidden_layers"), ","),
        ("width", config.get("hidden_size"), ","),
        ("width of the MLP", config.get("intermediate_size"), ","),
        ("vocabulary", config.get("vocab_size"), ","),
    ]
    cache = _cache_bytes(config, export.get("max_position_embeddings"))
    rows = [(name, format(value, form) if isinstance(value, int) else NOT_RECORDED) for name, value, form in known]
    rows[1:1] = _stored(provenance, export)
    rows += [("attention", heads), ("block", block)]
    rows += [("keys and values of a full window, in 16 bits", f"{cache / 1e6:,.1f} MB")] if cache else []
    rows.append(
        (
            "made for",
            "conversations" if export.get("chat") else "continuing a text (base model: it was not taught to answer)",
        )
    )
    return rows


def _stored(provenance: Provenance, export: Mapping[str, Any]) -> list[tuple[str, str]]:
    """How many numbers the weights are, where they are more than the parameters."""
    learned, stored = export.get("parameters"), export.get("numbers")
    if learned is None or stored is None or stored <= learned:
        return []
    filled = provenance.ours and (export["to"] == "llama" or export.get("flavour") == "llama")
    more = ", and the matrices of zeros of this form come on top" if filled else ""
    return [("numbers stored", f"{stored:,} (the embedding is stored twice{more})")]


def _cache_bytes(config: Mapping[str, Any], window: Any) -> int:
    """What a conversation costs beside the weights; 0 where the configuration does not tell."""
    heads, width = config.get("num_attention_heads"), config.get("hidden_size")
    parts = (window, config.get("num_hidden_layers"), config.get("num_key_value_heads") or heads)
    size = config.get("head_dim") or (width // heads if heads and width else None)
    return 2 * 2 * math.prod((*parts, size)) if all((*parts, size)) else 0


def _file(row: Mapping[str, Any]) -> tuple[str, str, str]:
    size = row.get("size_bytes")
    said = f"{size / 1e6:,.1f} MB" if isinstance(size, int) else NOT_RECORDED
    return cell(row["name"]), str(row.get("type") or ""), said


def _checks(export: Mapping[str, Any]) -> list[list[str]]:
    """A table with its header: the figures of each file, or of the whole export."""
    rows = [row for row in export.get("files") or () if row.get("checks")]
    if not rows and "top1" in (export.get("checks") or {}):
        rows = [{"name": "the export", "checks": export["checks"]}]
    names = list(dict.fromkeys(key for row in rows for key, value in row["checks"].items() if plain(value)))
    table = [["", *(FIGURES.get(name, name.replace("_", " ")) for name in names)]]
    for row in rows:
        cells = (f"{row['checks'][key]:.2%}" if key == "top1" else figure(row["checks"].get(key, "-")) for key in names)
        table.append([cell(row["name"]), *cells])
    return table if names else []


def _looked_at(checks: Mapping[str, Any]) -> str:
    """How many texts and tokens the figures are of."""
    known = [f"{checks[key]:,} {key}" for key in ("texts", "prompts", "tokens") if isinstance(checks.get(key), int)]
    return f" ({', '.join(known)})" if known else ""


def _inside(told: Mapping[str, Any]) -> list[list[str]]:
    """A table: what the tokenizer inside a GGUF file makes of the probe texts; empty for a file without one."""
    rows = [(name, told[name]) for name in ("raw", "cleaned") if isinstance(told.get(name), Mapping)]
    return [
        [name, *(f"{row[key]:.1%}" if plain(row.get(key)) else NOT_RECORDED for key in ("identical", "equal_ids"))]
        for name, row in rows
    ]


# ---------------------------------------------------------------------- data and stages


def _learned(row: Mapping[str, Any]) -> dict[str, Any]:
    sources = row.get("sources")
    shares = any(source.get("share") is not None for source in sources or ())
    written = any(source.get("synthetic") for source in sources or ())
    return {
        "kind": KINDS.get(str(row.get("stage")), cell(row.get("stage"))),
        "license": cell(row["license"]) if row.get("license") else None,
        "shares": shares,
        "written": written,
        "synthetic": _synthetic(sources or ()),
        "sources": None if sources is None else [_source(source, shares, written) for source in sources],
    }


def _source(row: Mapping[str, Any], shares: bool, written: bool) -> list[str]:
    cells = [cell(row["source"] or "(no name)"), f"{row['documents']:,}", f"{row['tokens']:,}"]
    if shares:
        cells.append(NOT_RECORDED if row.get("share") is None else f"{row['share']:.1%}")
    if written:
        cells.append(_models(row.get("synthetic")))
    return [*cells, _licenses(row.get("licenses"))]


def _models(synthetic: Mapping[str, int] | None) -> str:
    if synthetic is None:
        return NOT_RECORDED
    return ", ".join(f"{cell(name or NO_MODEL)} {count:,}" for name, count in synthetic.items()) or "-"


def _synthetic(sources: Sequence[Mapping[str, Any]]) -> str:
    """How much of a stage's data language models wrote, as far as the data say so."""
    known = [row for row in sources if row.get("synthetic") is not None]
    if not known:
        return f"Whether language models wrote a part of it: {NOT_RECORDED}."
    models = added(row["synthetic"] for row in known)
    if not models:
        line = "None of these documents says that a language model wrote it"
        return line + ("." if len(known) == len(sources) else f"; of some sources it is {NOT_RECORDED}.")
    documents, tokens = (max(1, sum(row[key] for row in sources)) for key in ("documents", "tokens"))
    count, size = sum(models.values()), sum(row.get("synthetic_tokens", 0) for row in known)
    shares = [f"{count:,} of {documents:,} documents ({count / documents:.1%})", f"{size / tokens:.1%} of the tokens"]
    if any(row.get("share") for row in known):  # a mixture sees some sources more often
        parts = ((row.get("share") or 0) * row.get("synthetic_tokens", 0) / max(1, row["tokens"]) for row in known)
        shares.append(f"{sum(parts):.1%} of what was drawn")
    return f"**Written by language models: {', '.join(shares)}**, by what the documents say: {_models(models)}."


def _writers(data: Sequence[Mapping[str, Any]]) -> list[str]:
    """The language models that wrote a part of the data."""
    tables = (source.get("synthetic") or {} for row in data for source in row.get("sources") or ())
    return list(dict.fromkeys(name or NO_MODEL for table in tables for name in table))


def _licenses(licenses: Mapping[str, int] | None) -> str:
    if licenses is None:
        return NOT_RECORDED
    if len(licenses) == 1:
        return cell(next(iter(licenses)) or "none named")
    return ", ".join(f"{cell(name or 'none named')}: {count:,}" for name, count in licenses.items()) or "none named"


def _license_line(license_: License) -> str:
    if license_.chosen is None:
        line = "No licence was chosen for these weights."
    else:
        line = f"Licence of the weights: {cell(license_.chosen)}."
    if license_.carried:
        line += (
            f" Data with the terms {' and '.join(license_.carried)} went into them: these terms go with the weights."
        )
    return line


def _stage(stage: Stage) -> dict[str, Any]:
    about, tuned = stage.about, stage.about.get("finetune") or {}
    counts = tuned if stage.kind == "finetune" else about
    rows = [("steps", figure(counts["steps"])), ("tokens seen", figure(counts["seen_tokens"]))] if counts.keys() >= {
        "steps", "seen_tokens",
    } else []  # fmt: skip
    if about.get("validation_loss") is not None:
        rows.append(("held-out loss", f"{about['validation_loss']:.4f} nats a token"))
    adapter = stage.recipe.get("adapter") or tuned.get("adapter")
    if isinstance(adapter, dict):
        told = ", ".join(f"{key} {adapter[key]}" for key in ("method", "rank", "alpha") if adapter.get(key) is not None)
        rows.append(("adapter", cell(told)))
    rows += [(key, _setting(stage.recipe[key])) for key in SETTINGS if stage.recipe.get(key) not in (None, {}, [])]
    rows += _made_with(stage.run)
    return {"kind": KINDS.get(stage.kind, cell(stage.kind)), "rows": rows, "recorded": bool(stage.recipe)}


def _setting(value: Any) -> str:
    if isinstance(value, dict):
        return cell(", ".join(f"{key} {each}" for key, each in value.items()))
    return cell(value) if isinstance(value, float) else figure(value)


def _made_with(run: Mapping[str, Any]) -> list[tuple[str, str]]:
    if not run:
        return []
    packages = run.get("packages") or {}
    said = [f"rinsho {run.get('rinsho')}", *(f"{name} {packages[name]}" for name in PACKAGES if name in packages)]
    commit = [("commit of rinsho", cell(str(run["commit"])[:12]))] if run.get("commit") else []
    return [("made with", cell(", ".join(said))), *commit]


def _split(split: Mapping[str, Any]) -> dict[str, Any]:
    parts = [f"by {split.get('split')}", f"test part: {split.get('test_part')}"]
    parts += [f"seed {split['seed']}"] if split.get("seed") is not None else []
    keys = ("rows", "test_rows", "near_documents", "same_case", "left")
    pools = [
        [cell(pool), *(figure(row[key]) if isinstance(row.get(key), int) else NOT_RECORDED for key in keys)]
        for pool, row in sorted((split.get("pools") or {}).items())
    ]
    return {"told": cell(", ".join(parts)), "pools": pools}


def _asking(provenance: Provenance) -> list[tuple[str, str]]:
    """How the model was asked while it was tuned: asked otherwise it answers worse."""
    tuned = provenance.tuned
    template = tuned.get("prompt_template")
    name = Path(str(template.get("name", ""))).name if isinstance(template, dict) else None
    rows = [("tasks", listed(tuned.get("tasks") or ())), ("form of the questions", tuned.get("prompt_form"))]
    rows += [("form of the answers", tuned.get("answer_form")), ("prompt template", name)]
    rows += [("rows", f"{tuned['rows']:,}" if isinstance(tuned.get("rows"), int) else None)]
    return [(key, cell(value)) for key, value in rows if value]


def _ternary(provenance: Provenance, export: Mapping[str, Any]) -> bool:
    """Whether a file may hold its zero matrices as TQ2_0 (`rinsho.export.gguf_types.form_of`)."""
    whole_blocks = int(provenance.config.get("hidden_size") or 0) % 256 == 0
    rounded = any(row.get("type") != "f16" for row in export.get("files") or ())
    return provenance.ours and whole_blocks and rounded and export.get("flavour") == "llama"


def _has_modelfile(provenance: Provenance, export: Mapping[str, Any]) -> bool:
    chat = provenance.tuned.get("chat") == "rinsho"
    return bool(export.get("files")) and modelfile.allowed(export, chat)
