"""Run folders: every stage leaves its settings, manifest, metrics, report and product, and DONE written last.

A stage with DONE and unchanged recipe and inputs is skipped; an interrupted one continues; an output folder that
belongs to another recipe is refused. See docs/files.md.
"""

from __future__ import annotations

import fcntl
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from rinsho.circumstances import circumstances, peak_memory_gib, reset_peak_memory
from rinsho.errors import UserError, from_os_error
from rinsho.files import atomic_file, atomic_folder, file_hash, quick_hash, write_atomic
from rinsho.progress import Progress, duration
from rinsho.recipe import Settings, load, to_yaml

__all__ = ["Report", "Stage", "atomic_file", "atomic_folder", "perform", "read_done", "read_metrics", "write_atomic"]

DONE = "DONE"
NOT_PRODUCT = {
    DONE, ".lock", "manifest.json", "metrics.jsonl", "log.txt", "report.json", "report.md", "report.html", "loss.png",
    ".token_counts.jsonl", "recipe.resolved.yaml",
}  # fmt: skip
# Settings that never change the product, or only its last digits (sums in another order): where, in what parts and in
# how many processes the work is done, how often something is written on the way, and limits that only decide whether a
# run goes on. They may differ when a stage continues. (A rollback goes to the last checkpoint: then it counts how often
# one is written. With dropout or noise it counts how many rows are computed at a time.)
NOT_IDENTITY = {
    "workers", "save_every_steps", "log_every_steps", "keep_checkpoints", "max_broken_fraction", "max_skipped_steps",
    "executor", "slurm", "parallelism", "micro_batch_rows", "activation_checkpointing", "compile", "loss_chunk_tokens",
    "background_checkpoints", "plot", "max_batch_tokens", "max_synthetic_fraction",
}  # fmt: skip
DRAWN = ("dropout", "attention_dropout", "residual_dropout", "neftune_alpha")


@dataclass(frozen=True)
class Report:
    """What a stage tells afterwards: `numbers` for programs (JSON-able), `markdown` for people."""

    numbers: dict[str, Any]
    markdown: str


class Stage:
    """What a room may use while it works: its folders, its log, its metrics and its progress line.

    Attributes:
        out: the run folder; products go here, atomically.
        partial: scratch that survives a kill and is deleted when the stage is done.
    """

    def __init__(self, name: str, out: Path) -> None:
        self.name, self.out, self.partial = name, out, out / "partial"

    def log(self, message: str) -> None:
        """One line on stderr and in log.txt. Ids, lengths and hashes only: never document text."""
        print(f"{self.name}: {message}", file=sys.stderr, flush=True)
        with (self.out / "log.txt").open("a", encoding="utf-8") as file:
            file.write(f"{_now()} {message}\n")

    def metric(self, **figures: Any) -> None:
        """Appends one line to metrics.jsonl."""
        with (self.out / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(figures, ensure_ascii=False) + "\n")

    def rewind_metrics(self, last: int, step_key: str = "step") -> None:
        """Drops the metric lines after step `last`, which a resumed run will write again."""
        kept = [
            row for row in read_metrics(self.out) if not (isinstance(row.get(step_key), int) and row[step_key] > last)
        ]
        write_atomic(self.out / "metrics.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept))

    def progress(self, label: str, total: int | None, unit: str, done: int = 0) -> Progress:
        """A progress line for this stage; `done` is what an earlier, interrupted run finished."""
        return Progress(f"{self.name}: {label}", total, unit, done)


def perform(
    name: str, recipe: Settings, inputs: Sequence[Path], out: Path, work: Callable[[Stage], Report], *,
    also: Sequence[str] = (), todo: str = "", identity: Settings | None = None,
) -> Report:  # fmt: skip
    """The report of one stage, which is run, continued or, when nothing changed, read from its folder.

    `also` is what else decides the product besides settings and inputs; `todo` is what to do besides choosing another
    folder when this one was made from other inputs. `identity` is the recipe without what decides nothing, where the
    room knows more of it than `NOT_IDENTITY`.

    Raises:
        UserError: the folder belongs to another recipe or other inputs, another process works in it, an input is
            missing, or the disk is full.
    """
    out = Path(out)
    try:
        _refuse_overlap(out, inputs)
        about = _identity(name, identity or recipe, inputs, also)
        out.mkdir(parents=True, exist_ok=True)
        _refuse_other(out, about, recipe, todo)  # before the lock, which would leave a file in another's folder
        with _locked(out):
            done = read_done(out)
            _refuse_other(out, about, recipe, todo)
            if done is not None and _complete(out, done):
                shutil.rmtree(out / "partial", ignore_errors=True)
                print(f"{name}: unchanged, skipped ({out})", file=sys.stderr)
                return Report(**json.loads((out / "report.json").read_text(encoding="utf-8")))
            return _work(name, recipe, about, out, work)
    except (UserError, KeyboardInterrupt):
        raise
    except Exception as error:
        known = from_os_error(error)
        if known is None:
            raise
        raise known from error


def unchanged(name: str, identity: Settings, inputs: Sequence[Path], out: Path, also: Sequence[str] = ()) -> bool:
    """Whether `perform` with the same words would skip the stage, as it is done; nothing is written for it."""
    done = read_done(out)
    return (
        done is not None
        and _complete(out, done)
        and done["identity"] == _identity(name, identity, inputs, also)["identity"]
    )


def read_done(folder: Path) -> dict[str, Any] | None:
    """The DONE record of a finished stage (`products`: relative path -> hash and size), or None."""
    try:
        done = json.loads((folder / DONE).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # missing, or something of that name that is not ours
        return None
    return done if isinstance(done, dict) and {"identity", "products"} <= done.keys() else None


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """All lines of metrics.jsonl; a last line that a kill cut off is left out."""
    rows: list[dict[str, Any]] = []
    try:
        # The last line may be torn inside a character; and U+2028 in a name ends no line.
        lines = (folder / "metrics.jsonl").read_text(encoding="utf-8", errors="replace").split("\n")
    except FileNotFoundError:
        return rows
    for line in lines:
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


def digest(path: Path) -> str:
    """A hash of an input: of the products of a finished stage, or of the files themselves.

    Raises:
        UserError: the input is missing, is empty, or is a stage that has not finished.
    """
    if not path.exists():
        raise UserError("not there", where=path, expected="an input file or folder", todo="check the path")
    for folder in (path, *path.resolve().parents):
        done = read_done(folder)
        if done is not None:
            known = _recorded(path, folder, done)
            if known:
                return _hash(known)
            break  # not a product of the stage, or changed since: its content counts
        if (folder / "recipe.resolved.yaml").exists() and (folder / "manifest.json").exists():
            raise UserError(
                "this stage has not finished",
                where=folder,
                expected="a DONE file in it",
                todo="run it again first: it continues",
            )
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    files = [file for file in files if not any(part.startswith(".") for part in file.relative_to(path).parts)]
    if not files:
        raise UserError("the folder is empty", where=path, expected="input files", todo="check the path")
    # a single file's name counts: ids and sources may come from it
    return _hash([(p.name if path.is_file() else p.relative_to(path).as_posix(), quick_hash(p)) for p in files])


def _recorded(path: Path, folder: Path, done: dict[str, Any]) -> list[tuple[str, str]]:
    """Names and hashes of a finished stage's products at `path`; nothing when one of them changed its size."""
    inside = path.resolve().relative_to(folder.resolve()).as_posix()
    rows = {
        name: row
        for name, row in sorted(done["products"].items())
        if inside in (".", name) or name.startswith(inside + "/")
    }
    for name, row in rows.items():
        product = folder / name
        if not product.is_file() or product.stat().st_size != row["size_bytes"]:
            return []
    return [(name, row["hash"]) for name, row in rows.items()]


def _work(name: str, recipe: Settings, identity: dict[str, Any], out: Path, work: Callable[[Stage], Report]) -> Report:
    stage = Stage(name, out)
    manifest = {**identity, **circumstances(), "started": _now()}
    manifest["continued"] = (out / "manifest.json").exists()
    write_atomic(out / "manifest.json", _json(manifest))  # first: it tells a later run whose folder this is
    write_atomic(out / "recipe.resolved.yaml", to_yaml(recipe))
    (out / DONE).unlink(missing_ok=True)
    _remove_asides(out)
    stage.partial.mkdir(exist_ok=True)
    started = time.monotonic()
    reset_peak_memory()
    try:
        report = work(stage)
    except UserError:
        if not manifest["continued"] and not any(stage.partial.iterdir()) and not _made(out):
            stage.partial.rmdir()
            for file in ("manifest.json", "recipe.resolved.yaml"):  # nothing is made yet: free for a corrected recipe
                (out / file).unlink()
        raise
    seconds = time.monotonic() - started
    manifest |= {"finished": _now(), "seconds": round(seconds, 2), "peak_memory_gib": peak_memory_gib()}
    write_atomic(out / "report.json", _json({"numbers": report.numbers, "markdown": report.markdown}))
    write_atomic(out / "report.md", report.markdown)
    write_atomic(out / "manifest.json", _json(manifest))
    own = {stage.partial, *(path.parent for path in out.rglob(f"*/{DONE}"))}  # a run inside keeps its own record
    products = {
        path.relative_to(out).as_posix(): {"hash": file_hash(path), "size_bytes": path.stat().st_size}
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.relative_to(out).as_posix() not in NOT_PRODUCT and own.isdisjoint(path.parents)
    }
    write_atomic(out / DONE, _json({"identity": identity["identity"], "products": products}))
    shutil.rmtree(stage.partial, ignore_errors=True)  # after DONE: a kill in between must not cost the work again
    stage.log(f"done in {duration(seconds)}, peak memory {manifest['peak_memory_gib']:.2f} GiB ({out})")
    return report


def _made(out: Path) -> list[str]:
    """What a run has made so far that another one would have to respect."""
    return [path.name for path in out.iterdir() if path.name not in NOT_PRODUCT and path.name != "partial"]


def _kept(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that decide the product; of patterns the order counts, too."""
    counted = {"save_every_steps"} if settings.get("on_spike") == "rollback" else set()
    if _draws(settings):
        counted.add("micro_batch_rows")
    kept = {key: value for key, value in settings.items() if key not in NOT_IDENTITY - counted}
    return {key: list(value.items()) if key == "mixture" else value for key, value in kept.items()}


def _draws(settings: dict[str, Any]) -> bool:
    """Whether a training's forward pass draws random numbers: with other rows at a time it draws others."""
    parts = [part for part in (settings, settings.get("adapter"), settings.get("model")) if isinstance(part, dict)]
    return any(part.get(name) for part in parts for name in DRAWN)


def _identity(name: str, recipe: Settings, inputs: Sequence[Path], also: Sequence[str]) -> dict[str, Any]:
    """What makes two runs the same: stage, settings and content of the inputs; not paths, time or machine."""
    rows = [{"path": str(path), "hash": digest(Path(path))} for path in inputs]
    settings = _kept(recipe.model_dump(mode="json"))
    return {
        "stage": name,
        "identity": _hash([name, settings, [row["hash"] for row in rows], *also]),
        "recipe": _hash(settings),
        "settings": settings,
        "seed": settings.get("seed"),
        "inputs": rows,
    }


def _refuse_overlap(out: Path, inputs: Sequence[Path]) -> None:
    for path in inputs:
        if path.resolve() in (out.resolve(), *out.resolve().parents):
            raise UserError(
                "the output folder lies inside an input",
                where=out,
                expected="a folder of its own: what is written there would change the input",
                todo="choose another --out",
            )


def _refuse_other(out: Path, identity: dict[str, Any], recipe: Settings, todo: str) -> None:
    try:
        before = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        left = {"log.txt", "metrics.jsonl"}  # by a run that came to nothing
        strange = [path.name for path in out.iterdir() if not path.name.startswith(".") and path.name not in left]
        if strange:
            raise UserError(
                f"the output folder holds other files ({len(strange)})",
                where=out,
                expected="a new folder or one of this stage",
                todo="choose another --out",
            ) from None
        return
    if before.get("identity") == identity["identity"]:
        return
    usual = "choose another --out, or delete the folder to make it anew"
    if before.get("stage") != identity["stage"]:
        what = f"the output folder belongs to the stage {before.get('stage')}"
    elif before.get("recipe") != identity["recipe"]:
        what = f"the output folder belongs to another recipe ({_difference(out, before, identity, recipe)})"
    else:
        what = "the output folder was made from other inputs"
        usual += f"; {todo}" if todo else ""
    raise UserError(
        what,
        where=out,
        expected="the recipe and inputs in its recipe.resolved.yaml and manifest.json",
        todo=usual,
    )


def _difference(out: Path, before: dict[str, Any], identity: dict[str, Any], recipe: Settings) -> str:
    """The settings that differ from those of a run folder, in a few words."""
    there, here = before.get("settings"), identity["settings"]
    if there is None:  # written before manifests had them: what a user gave then and now
        try:
            there, here = _kept(load(out / "recipe.resolved.yaml")), _kept(recipe.model_dump(mode="json"))
        except UserError:
            return "its recipe.resolved.yaml cannot be read"
    told = list(_differing(*(json.loads(json.dumps(settings)) for settings in (there, here))))
    more = [f"{len(told) - 3} more"] if len(told) > 3 else []
    return "; ".join(told[:3] + more) or "of another version of rinsho"


def _differing(there: Any, here: Any, name: str = "") -> Iterator[str]:
    """`name: value there, value here` of the innermost settings that differ."""
    if isinstance(there, dict) and isinstance(here, dict):
        for key in sorted(there.keys() | here.keys()):
            yield from _differing(there.get(key), here.get(key), f"{name}.{key}" if name else key)
    elif there != here:
        yield f"{name}: {str(there)[:60]} there, {str(here)[:60]} here"


def _remove_asides(out: Path) -> None:
    """Half-written files of a killed run (see `rinsho.files`)."""
    for path in out.rglob(".*.aside"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _complete(out: Path, done: dict[str, Any]) -> bool:
    """Whether all products are still there in their size; otherwise the stage runs again."""
    return (out / "report.json").is_file() and all(
        (out / name).is_file() and (out / name).stat().st_size == row["size_bytes"]
        for name, row in done["products"].items()
    )


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    with (out / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                "another rinsho process is working in this folder",
                where=out,
                expected="one process a folder",
                todo="wait for it or choose another --out",
            ) from None
        yield


def _hash(value: Any) -> str:
    return blake2b(json.dumps(value, sort_keys=True, ensure_ascii=True).encode(), digest_size=16).hexdigest()


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2) + "\n"


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
