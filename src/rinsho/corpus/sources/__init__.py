"""Where the documents come from: which file is read how, and Hugging Face data sets that the user names."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from rinsho.document import Broken, Document, printable_name, shard_paths
from rinsho.errors import UserError
from rinsho.recipe import Settings

if TYPE_CHECKING:
    from rinsho.corpus import Recipe
    from rinsho.run import Stage

Layout = Literal["auto", "plain", "oscar", "wiki40b", "wikipedia", "fhir"]
Encoding = Literal["auto", "utf-8", "cp932", "euc-jp", "iso-2022-jp"]
FORMS = (".jsonl", ".ndjson", ".csv", ".tsv", ".txt")  # each also with .zst or .gz behind it
SUFFIXES = (*(form + packing for form in FORMS for packing in ("", ".zst", ".gz")), ".parquet")
EXTRACT = re.compile(r"wiki_\d+(\.zst|\.gz)?")  # WikiExtractor's names, which have no ending


class Source(Settings):
    """How the files of one pattern are read. What is left out comes from the recipe or from the layout."""

    files: str = Field(
        default="*",
        description="Files this is for: pattern of the path below the input, the file name or the path (N2.1-1).",
    )
    layout: Layout = Field(
        default="auto",
        description="auto tells OSCAR, Wiki-40B, Wikipedia extract and FHIR by the first record (N2.1-1).",
    )
    name: str | None = Field(
        default=None, description="Source in the report; else source_field, else the file name (N2.1-7)."
    )
    encoding: Encoding = Field(
        default="auto", description="auto decides over the whole of a CSV or text file; JSON lines are UTF-8 (N2.1-1)."
    )
    text_field: str | tuple[str, ...] | None = Field(
        default=None,
        description="Field, column or dotted path of the text; several are joined by a line feed (N2.1-1).",
    )
    id_field: str | None = Field(default=None, description="Field, column or dotted path of the id (N2.1-1).")
    source_field: str | None = Field(default=None, description="Field with the source (N2.1-7).")
    delimiter: str | None = Field(
        default=None,
        min_length=1,
        max_length=1,
        description="Of CSV; else told from the header: comma, tab, semicolon (N2.1-1).",
    )
    license: str | None = Field(default=None, description="Goes into each record that has no field `license` (N2.1-1).")


class HuggingFace(Settings):
    """A Hugging Face data set to fetch: the one thing in this room that may use the network."""

    dataset: str = Field(description="Name on the hub, or a local folder, which needs no network (N2.1-1).")
    config: str | None = Field(default=None, description="Configuration of the data set (N2.1-1).")
    split: str = Field(default="train", description="Split of the data set (N2.1-1).")
    revision: str | None = Field(default=None, description="Commit of the hub, required for a name there (N2.1-1).")
    text_field: str | tuple[str, ...] | None = Field(default=None, description="As in corpus.sources (N2.1-1).")
    id_field: str | None = Field(default=None, description="As in corpus.sources (N2.1-1).")
    name: str | None = Field(default=None, description="Source in the report; else the data set's name (N2.1-7).")
    license: str | None = Field(default=None, description="As in corpus.sources (N2.1-1).")
    layout: Layout = Field(default="auto", description="As in corpus.sources (N2.1-1).")


@dataclass(frozen=True, slots=True)
class Reading:
    """A `Source` resolved for one file, nothing left None.

    Empty stands for: the layout's own field (text_field, id_field), told from the header (delimiter), by source_field
    or file name (name), none (license).
    """

    layout: Layout
    encoding: Encoding
    name: str
    text_field: tuple[str, ...]
    id_field: str
    source_field: str
    delimiter: str
    license: str


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file and how it is read. Can be pickled.

    Attributes:
        name: path below the input, with `/`; ids of records without one start with it.
        settings: what holds for it, see `Reading`.
        size_bytes: on disk.
    """

    path: Path
    name: str
    settings: Reading
    size_bytes: int


def files(recipe: Recipe, inputs: Sequence[Path]) -> list[SourceFile]:
    """All document files below the inputs, sorted within each, with the first of `recipe.sources` that fits.

    Left out are hidden files, logs, and folders named `dropped` or `partial`, as everywhere in this package.

    Raises:
        UserError: an input is missing or holds no file of a known form.

    Source: SPEC N2.1-1.
    """
    found = []
    names: Counter[str] = Counter()
    for position, given in enumerate(inputs):
        for path in shard_paths([given], _known, "files ending in " + ", ".join((*FORMS, ".parquet")) + " (.zst, .gz)"):
            name = path.relative_to(given).as_posix() if path != given else path.name
            source = next((source for source in recipe.sources if fits(source, name, path, given)), Source())
            names[name] += 1
            if names[name] > 1:  # of two inputs; ids begin with the name
                name = f"{position}/{name}"
            reading = _resolved(source, recipe, path, given)
            found.append(SourceFile(path, printable_name(name), reading, path.stat().st_size))
    return found


def unused(recipe: Recipe, inputs: Sequence[Path]) -> list[str]:
    """The patterns of `recipe.sources` that fit no file."""
    left = list(recipe.sources)
    for given in inputs:
        for path in shard_paths([given], _known, ""):
            name = path.relative_to(given).as_posix() if path != given else path.name
            left = [source for source in left if not fits(source, name, path, given)]
    return [source.files for source in left]


def read(file: SourceFile, on_broken: Callable[[Broken], None]) -> Iterator[Document]:
    """The documents of one file, streamed: memory does not grow with the file.

    A record that cannot be read goes to `on_broken` and reading goes on. A document without an id gets
    `<name>:<line>`.

    Raises:
        UserError: the file is cut off or not of its form, its encoding cannot be told, or no record has the text field.
    """
    from rinsho.corpus.sources.layouts import documents

    return documents(file, on_broken)


def problem(settings: HuggingFace) -> UserError | None:
    """What can be known to be wrong before anything is fetched."""
    if settings.revision or Path(settings.dataset).is_dir():
        return None
    return UserError(
        f"the data set {settings.dataset!r} is no folder here and has no revision",
        where="corpus.huggingface",
        expected="the commit of the data set on the hub, so that the same text comes again",
        todo="set revision, or give a local folder",
    )


def fetch(settings: HuggingFace, folder: Path, stage: Stage) -> Path:
    """The folder with the data set as `.jsonl.zst` files, one a file of the data set; those already there stay.

    The command line keeps Hugging Face's libraries offline. Naming a data set that is no local folder lifts this for
    this call alone: the work is done in a process of its own, which is the only one to be told to go online.

    Raises:
        UserError: no revision, no package `datasets`, no such data set, revision, configuration, split or field.

    Source: SPEC N2.1-1.
    """
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    wrong = problem(settings)
    if wrong is not None:
        raise wrong
    offline = "1" if Path(settings.dataset).is_dir() else "0"
    folder.mkdir(parents=True, exist_ok=True)
    with (
        _environment(
            {
                "HF_HUB_OFFLINE": offline,
                "HF_DATASETS_OFFLINE": offline,
                "HF_HUB_DISABLE_TELEMETRY": "1",
                "USE_TORCH": "0",
            }
        ),
        ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool,
    ):
        count = pool.submit(_part_count, settings).result()
        parts = [folder / f"{number:05d}-of-{count:05d}.jsonl.zst" for number in range(count)]
        done = sum(part.exists() for part in parts)
        with stage.progress(f"fetching {settings.dataset}", count, "files", done) as progress:
            for number, part in enumerate(parts):
                if not part.exists():
                    pool.submit(_fetch_part, settings, number, count, part).result()
                    progress.update()
    return folder


def fetched(recipe: Recipe, settings: HuggingFace, folder: Path) -> list[SourceFile]:
    """The files that `fetch` wrote, read as the data set's settings say."""
    source = Source(
        layout=settings.layout,
        name=settings.name or Path(settings.dataset).name,
        text_field=settings.text_field,
        id_field=settings.id_field,
        license=settings.license,
    )
    found = files(recipe.model_copy(update={"sources": (source,)}), [folder])
    return [
        SourceFile(file.path, f"{source.name}/{file.name}", file.settings, file.size_bytes)
        for file in found
        if re.fullmatch(r"\d{5}-of-\d{5}\.jsonl\.zst", file.name)
    ]


def _known(name: str) -> bool:
    return name.lower().endswith(SUFFIXES) or EXTRACT.fullmatch(name) is not None


def fits(source: Source, name: str, path: Path, given: Path) -> bool:
    """Whether a source's pattern is that of a file: of its path below the input, with the input's name, or as given."""
    texts = (name, f"{given.resolve().name}/{name}", path.name, path.as_posix())
    return any(fnmatchcase(text, source.files) for text in texts)


def _resolved(source: Source, recipe: Recipe, path: Path, given: Path) -> Reading:
    """The settings for one file. A field that the recipe leaves at its default is the layout's to choose."""
    text = source.text_field or ("" if recipe.text_field == "text" else recipe.text_field)
    single = path != given and path.name.lower().removesuffix(".gz").removesuffix(".zst").endswith(".txt")
    return Reading(
        layout=source.layout,
        encoding=source.encoding,
        name=source.name or (path.parent.name if single else ""),  # a folder of text files is one source
        text_field=tuple(part for part in ((text,) if isinstance(text, str) else text) if part),
        id_field=source.id_field or ("" if recipe.id_field == "id" else recipe.id_field),
        source_field=source.source_field or recipe.source_field,
        delimiter=source.delimiter or "",
        license=source.license or "",
    )


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@lru_cache(maxsize=1)
def _dataset(settings: HuggingFace) -> Any:
    """The data set, to be streamed. Runs in the process that fetches."""
    try:
        import datasets
    except ImportError:
        raise UserError(
            "the package datasets is not installed", where="corpus.huggingface", todo="pip install datasets"
        ) from None
    try:
        return datasets.load_dataset(
            settings.dataset, settings.config, split=settings.split, revision=settings.revision, streaming=True
        )
    except Exception as error:
        raise _refusal(settings, error) from None


def _part_count(settings: HuggingFace) -> int:
    try:
        first = next(iter(_dataset(settings)), None)
    except UserError:
        raise
    except Exception as error:
        raise _refusal(settings, error) from None
    wanted = (settings.text_field,) if isinstance(settings.text_field, str) else settings.text_field or ()
    missing = [name for name in wanted if first is not None and name.partition(".")[0] not in first]
    if missing and settings.layout != "fhir":
        raise UserError(
            f"no field {missing[0]!r}",
            where=settings.dataset,
            expected="one of " + ", ".join(list(first or ())[:20]),
            todo="set text_field in corpus.huggingface",
        )
    return int(_dataset(settings).num_shards)


def _fetch_part(settings: HuggingFace, number: int, count: int, part: Path) -> None:
    """Writes the records of one file of the data set; the part appears whole or not at all."""
    import orjson

    from rinsho.corpus.writing import LineWriter

    option = orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS
    try:
        with LineWriter(part) as target:
            for row in _dataset(settings).shard(num_shards=count, index=number):
                target.write_line(orjson.dumps(row, default=_as_text, option=option))
    except Exception as error:
        raise _refusal(settings, error) from error


def _as_text(value: Any) -> str:
    """A value that JSON has no form for: bytes as text (Wiki-40B's are UTF-8), all else as its kind."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else type(value).__name__


def _refusal(settings: HuggingFace, error: Exception) -> UserError:
    """The library's error in one line. Its message is told where it speaks of names, never where it may hold text."""
    kind = type(error).__name__
    what, expected = f"cannot be read ({kind})", "a data set that the package datasets can stream"
    if kind in ("DatasetNotFoundError", "RepositoryNotFoundError", "GatedRepoError"):
        what, expected = "no such data set or revision, or no access to it", "a public name, or HF_TOKEN with access"
    elif kind == "RevisionNotFoundError":
        what, expected = f"no revision {settings.revision!r}", "a commit of the data set"
    elif kind in (
        "ConnectionError",
        "OfflineModeIsEnabled",
        "ConnectError",
        "ConnectTimeout",
        "LocalEntryNotFoundError",
    ):
        what, expected = "the hub cannot be reached", "a connection, or a copy of the data set in a local folder"
    elif isinstance(error, ValueError) and re.match(r"(Unknown split|BuilderConfig|Config name|Bad split)", str(error)):
        what, expected = f"no split {settings.split!r} or configuration {settings.config!r}", str(error)[:300]
    return UserError(what, where=settings.dataset, expected=expected, todo="check corpus.huggingface")
