"""The work of an export: merge an adapter, write the form, compare it with the source, write the card."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rinsho import adapters
from rinsho.chat_template import has_chat
from rinsho.errors import UserError
from rinsho.export import Recipe, checking
from rinsho.export.card import write_card
from rinsho.export.forms import copy_beside, write_hf, write_llama
from rinsho.export.gguf_file import About, write_gguf
from rinsho.export.gguf_tensors import is_ours
from rinsho.export.gguf_tokenizer import BYTE, plain_template, vocabulary
from rinsho.export.gguf_types import form_of
from rinsho.export.licensing import license_of
from rinsho.export.probes import Probes, ids_of, probes
from rinsho.export.provenance import Provenance, read
from rinsho.export.report import markdown
from rinsho.export.weights import Weights, open_weights, parameters_of
from rinsho.files import atomic_file, publish_folder, write_atomic
from rinsho.generate.loading import load_model, load_tokenizer
from rinsho.model_folder import MANIFEST, WEIGHTS, read_manifest
from rinsho.run import Report, Stage
from rinsho.text import clean

THREADS = 4  # of llama.cpp's quantisation
SELDOM = 0.1  # share of texts that may have characters without a piece in a tokenizer that is called exact


@dataclass(frozen=True)
class Material:
    """What one export works with.

    Attributes:
        source: the model's folder; of an adapter the folder it was merged into.
        weights: its weights, `tokenizer` its tokenizer.
        probes: what source and export are fed.
        name: of the model, in card and file.
        provenance: what it was made of.
    """

    recipe: Recipe
    stage: Stage
    source: Path
    weights: Weights
    tokenizer: Any
    probes: Probes
    name: str
    provenance: Provenance

    @property
    def made(self) -> Path:
        """Where the product is put together."""
        return self.stage.partial / "product"

    @property
    def reference(self) -> Path:
        """The source's logits of the probes."""
        return self.stage.partial / "source.logits"


def work(recipe: Recipe, inputs: Sequence[Path], stage: Stage) -> Report:
    """The report of an export whose files lie in `stage.out`; nothing lies there when a check fails."""
    model, *evaluations = inputs
    source = _merged(recipe, model, stage)
    weights, tokenizer = open_weights(source), load_tokenizer(source)
    window = int(weights.config.get("max_position_embeddings") or 1024)
    given = Path(recipe.probe_texts) if recipe.probe_texts else None
    fed = probes(tokenizer, window, source, given)
    name = recipe.title or _name(weights, tokenizer)
    job = Material(recipe, stage, source, weights, tokenizer, fed, name, _provenance(recipe, model, evaluations))
    job.made.mkdir(exist_ok=True)
    try:
        files = _gguf_files(job) if recipe.to == "gguf" else [_model_file(job)]
    except UserError:
        shutil.rmtree(stage.partial)  # what does not answer as the model must not lie about
        stage.partial.mkdir()
        raise
    export = _facts(job, files)
    _write_beside(job, export)
    write_card(job.made, job.provenance, export)
    publish_folder(job.made, stage.out)
    seconds = {row["name"]: row.pop("seconds") for row in files}
    return Report({**export, "seconds": seconds}, markdown(export, seconds))


def _merged(recipe: Recipe, model: Path, stage: Stage) -> Path:
    """The folder with the whole model: the given one, or the adapter multiplied into its base, in float32."""
    if not adapters.is_adapter(model):
        return model
    merged = stage.partial / "merged"
    if not merged.is_dir():
        from rinsho.adapter_merge import merge

        found = merge(model, merged, Path(recipe.base) if recipe.base else None, "float32")
        stage.log(f"adapter merged; largest change of a logit {found.largest_logit_change:.1e}")
    return merged


def _model_file(job: Material) -> dict[str, Any]:
    """Writes the `hf` or `llama` form and checks it in transformers; the facts on its file."""
    recipe, started = job.recipe, time.monotonic()
    if not (job.made / WEIGHTS).is_file():
        write = write_hf if recipe.to == "hf" else write_llama
        write(job.weights, job.made, recipe.dtype)
    return _checked(job, WEIGHTS, recipe.dtype, {"runtime": "transformers", "path": str(job.made)}, started)


def _gguf_files(job: Material) -> list[dict[str, Any]]:
    """Writes the GGUF files and checks them in llama.cpp; the facts on each."""
    about, flavour = _about(job), job.recipe.flavour
    found = []
    for place, type_ in enumerate(job.recipe.types):
        path, started = job.made / f"model-{flavour}-{type_}.gguf", time.monotonic()
        if not path.is_file() and type_ == "q4_k_m":
            _quantize(job, path, about)
        elif not path.is_file():
            with atomic_file(path) as file:
                write_gguf(job.weights, Path(file.name), flavour, type_, about)
        request: dict[str, Any] = {"runtime": "llama.cpp", "path": str(path)}
        if place == 0 and about.vocabulary is not None:
            request["texts"] = [*job.probes.texts, *map(clean, job.probes.texts)]
        found.append(_checked(job, path.name, type_, request, started))
    return found


def _quantize(job: Material, path: Path, about: About) -> None:
    """Q4_K_M, which only llama.cpp itself writes, of a file in float16."""
    wide, flavour = job.made / f"model-{job.recipe.flavour}-f16.gguf", job.recipe.flavour
    if "f16" not in job.recipe.types or not wide.is_file():
        wide = job.stage.partial / "wide.gguf"
        write_gguf(job.weights, wide, flavour, "f16", about)
    overrides = []
    if flavour == "llama" and is_ours(job.weights):
        shape = (int(job.weights.config["intermediate_size"]), int(job.weights.config["hidden_size"]))
        overrides = [(r"ffn_up\.weight", int(form_of("blk.0.ffn_up.weight", shape, "q4_k_m", zero=True)))]
    with atomic_file(path) as file:
        request = {"path": str(wide), "out": file.name, "overrides": overrides, "threads": THREADS}
        checking.in_runtime({"runtime": "quantize", **request}, path)
    (job.stage.partial / "wide.gguf").unlink(missing_ok=True)


def _checked(job: Material, name: str, form: str, request: dict[str, Any], started: float) -> dict[str, Any]:
    """Name, type, size, figures and seconds of a file, which is compared with the source unless it was already.

    Raises:
        UserError: its runtime does not open it, or its answers are not the source's.
    """
    record, logits = job.stage.partial / f"{name}.json", job.stage.partial / "export.logits"
    if record.is_file():
        found: dict[str, Any] = json.loads(record.read_text(encoding="utf-8"))
        return found
    written = time.monotonic() - started
    _write_reference(job)
    reply = checking.in_runtime({**request, "ids": job.probes.ids, "logits": str(logits)}, job.made / name)
    agreement = checking.agreement(job.reference, logits, int(job.weights.config["vocab_size"]))
    logits.unlink()
    size = (job.made / name).stat().st_size
    job.stage.log(f"{name}: {size / 1e6:.1f} MB; {agreement}")
    checking.must_hold(agreement, form, name)
    found = {"name": name, "type": form, "size_bytes": size, "checks": agreement.rounded}
    if reply.get("tokens") is not None and "texts" in request:
        found["inside"] = _inside(job, reply["tokens"])
    found["seconds"] = {"writing": round(written, 1), "checking": round(time.monotonic() - started - written, 1)}
    write_atomic(record, json.dumps(found))
    return found


def _write_reference(job: Material) -> None:
    """The source's logits, in float32, once."""
    if job.reference.is_file():
        return
    aside = job.stage.partial / "source.aside"
    checking.write_logits(load_model(job.source, "float32"), job.probes.ids, aside)
    aside.replace(job.reference)


def _inside(job: Material, tokens: list[list[int]]) -> dict[str, Any]:
    """What the tokenizer inside the file makes of the texts, against ours.

    `exact`: the same ids for every cleaned text whose characters all have a piece. What has none is lost there
    (`rinsho.export.gguf_tokenizer`); `texts_with_bytes` says how many texts have such a character, and where that is
    more than seldom, nothing is exact.
    """
    texts = job.probes.texts
    ours = [ids_of(job.tokenizer, text) for text in texts]
    raw, cleaned = tokens[: len(texts)], tokens[len(texts) :]
    kinds = vocabulary(job.source, int(job.weights.config["vocab_size"])).kinds
    spelt = [any(kinds[number] == BYTE for number in ids) for ids in ours]
    exact = all(a == b for a, b, bytes_ in zip(ours, cleaned, spelt, strict=True) if not bytes_)
    exact = exact and sum(spelt) <= SELDOM * len(texts)
    figures = {"raw": checking.spelling(ours, raw), "cleaned": checking.spelling(ours, cleaned)}
    rounded = {
        key: {"identical": round(value.identical, 4), "equal_ids": round(value.equal_ids, 4)}
        for key, value in figures.items()
    }
    return {"model": "t5", "texts": len(texts), **rounded, "texts_with_bytes": sum(spelt), "exact": exact}


def _about(job: Material) -> About:
    """What the GGUF files say of themselves. A foreign tokenizer stays outside: llama.cpp's own converter knows it."""
    config, tokenizer, template = job.weights.config, job.tokenizer, None
    if has_chat(tokenizer) and isinstance(tokenizer.chat_template, str):
        template = plain_template(tokenizer.chat_template)
    front = license_of(job.recipe.license, job.provenance.data).front  # with the terms of the data
    license_ = front.get("license_name") or front.get("license", "")
    if not hasattr(tokenizer, "encode_text"):
        return About(job.name, license_, chat_template=template)
    names = {"bos": tokenizer.bos_token_id, "eos": tokenizer.eos_token_id, "pad": tokenizer.pad_token_id}
    special = {name: int(number) for name, number in (names | {"unk": tokenizer.unk_token_id}).items()}
    inside = vocabulary(job.source, int(config["vocab_size"]))
    return About(job.name, license_, inside, special, template)


def _name(weights: Weights, tokenizer: Any) -> str:
    """Such as `rinsho-15M-chat`: of the model alone, so that the files are the same wherever it lies."""
    count = parameters_of(weights)
    size = f"{count / 1e9:.2g}B" if count >= 1e9 else f"{count / 1e6:.0f}M" if count >= 1e6 else f"{count / 1e3:.0f}K"
    kind = "rinsho" if is_ours(weights) else str(weights.config.get("model_type"))
    return f"{kind}-{size}" + ("-chat" if has_chat(tokenizer) else "")


def _facts(job: Material, files: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What `rinsho.json`, the card and the report say of the export."""
    recipe, config, gguf = job.recipe, job.weights.config, job.recipe.to == "gguf"
    inside = next((row.pop("inside") for row in files if "inside" in row), {"model": "no_vocab", "exact": False})
    return {
        "to": recipe.to,
        "flavour": recipe.flavour if gguf else None,
        "types": list(recipe.types) if gguf else [],
        "dtype": None if gguf else recipe.dtype,
        "files": [{key: value for key, value in row.items() if key != "seconds"} for row in files],
        "checks": {"texts": len(job.probes.texts), "prompts": len(job.probes.ids), "tokens": job.probes.tokens},
        "tokenizer_inside": inside if gguf else {},
        "exact_inside": bool(gguf and inside["exact"]),
        "architecture": str(config.get("model_type")),
        "parameters": parameters_of(job.weights),
        "numbers": job.weights.parameters,
        "max_position_embeddings": config.get("max_position_embeddings"),
        "chat": has_chat(job.tokenizer),
        "title": job.name,
        "license": recipe.license,
    }


def _write_beside(job: Material, export: dict[str, Any]) -> None:
    """Tokenizer and `rinsho.json`; with a GGUF, too, so that rinsho's tokenizer stands in front of it."""
    copy_beside(job.source, job.made)
    manifest = {"form": str(job.weights.config.get("model_type")), **read_manifest(job.source)}
    manifest |= {"parameters": export["parameters"]} if "parameters" in manifest else {}
    if job.recipe.to == "llama" and is_ours(job.weights):
        manifest["form"] = "llama; the block without a gate as one whose up branch is 1"
    write_atomic(job.made / MANIFEST, json.dumps(manifest | {"export": export}, ensure_ascii=False, indent=2) + "\n")


def _provenance(recipe: Recipe, model: Path, evaluations: Sequence[Path]) -> Provenance:
    base = Path(recipe.base) if recipe.base else None
    if base is None and adapters.is_adapter(model):
        base = adapters.find_base(model)
    return read(model, base, evaluations)
