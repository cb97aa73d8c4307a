"""The documents of a file: what of a record is text, id and meta in each layout."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from rinsho.corpus.sources.rows import (
    Broke,
    Rows,
    csv_rows,
    extract_rows,
    first_json_row,
    json_rows,
    no_field,
    parquet_rows,
    starts_with,
    text_documents,
    wanted,
)  # fmt: skip
from rinsho.document import Broken, Document, printable_name

if TYPE_CHECKING:
    from rinsho.corpus.sources import SourceFile

# Text, id (None: none there) and meta of a record; the reason why it is broken; or None when it holds no document.
Mapped = tuple[str, Any, dict[str, Any]] | str | None
MISSING_RECORDS = 1000  # so many records without the text field, and none with it, end the reading
MARKER = re.compile(r"_START_(ARTICLE|SECTION|PARAGRAPH)_")
REDIRECT = re.compile(
    r"\s*(?:[#＃]\s*(?:REDIRECT|転送|リダイレクト)|(?:REDIRECT|転送先?|リダイレクト)\s*(?:[:：]|\[\[))", re.IGNORECASE
)


def documents(file: SourceFile, on_broken: Callable[[Broken], None]) -> Iterator[Document]:
    """The documents of one file, streamed. Raises as `sources.read`. Source: SPEC N2.1-1."""

    def broken(where: str, reason: str) -> None:
        on_broken(Broken(where, reason))

    form = file.path.name.lower().removesuffix(".gz").removesuffix(".zst")
    if form.endswith(".parquet"):
        yield from _documents(file, parquet_rows(file), broken)
    elif form.endswith((".csv", ".tsv")):
        yield from _documents(file, csv_rows(file, broken), broken)
    elif form.endswith((".jsonl", ".ndjson")):
        yield from _documents(file, _json_rows(file, broken), broken)
    elif starts_with(file, b"<doc "):
        yield from _documents(file, extract_rows(file, broken), broken, "wikipedia")
    elif form.endswith(".txt"):
        yield from text_documents(file, broken)
    else:
        yield from _documents(file, _json_rows(file, broken), broken)


def _documents(file: SourceFile, rows: Rows, broken: Broke, layout: str = "") -> Iterator[Document]:
    settings, layout = file.settings, layout or file.settings.layout
    take: Callable[[dict[str, Any]], Mapped] | None = None
    found, missing, names = 0, 0, list[str]()
    for number, row in rows:
        if not isinstance(row, dict):
            broken(f"{file.path}:{number}", "no_text")
            continue
        if take is None:
            layout = _layout(row, wanted(file)[0]) if layout == "auto" else layout
            take, names = _mapper(file, layout), list(map(str, row))
        for part, record in enumerate(_entries(row) if layout == "fhir" else (row,)):
            mapped = take(record)
            if isinstance(mapped, str):
                broken(f"{file.path}:{number}", mapped)
                missing += mapped == "no_text"
            elif mapped is not None:
                text, name, meta = mapped
                found += 1
                if settings.license:
                    meta.setdefault("license", settings.license)
                if not isinstance(name, str | int | float) or name == "":
                    name = f"{file.name}:{number}" + (f".{part}" if part else "")
                yield Document(text, printable_name(str(name)), meta)
        if missing >= MISSING_RECORDS and not found:
            break
    never = not any(field.partition(".")[0] in names for field in wanted(file))
    if missing and not found and (missing >= MISSING_RECORDS or never):
        raise no_field(file, names)


def _json_rows(file: SourceFile, broken: Broke) -> Rows:
    layout: str = file.settings.layout
    if layout == "auto" and isinstance(first := first_json_row(file), dict):
        layout = _layout(first, wanted(file)[0])
    return json_rows(file, broken, exact=layout != "oscar")  # of OSCAR's hundreds of numbers a record none is kept


# What of a record is text, id and meta


def _mapper(file: SourceFile, layout: str) -> Callable[[dict[str, Any]], Mapped]:
    settings = file.settings
    if layout == "fhir":
        from rinsho.corpus.sources.fhir import mapper

        return mapper(settings.text_field, settings.id_field)
    if layout == "oscar":
        return _oscar(settings.text_field, settings.id_field, settings.source_field)
    plain = _plain(wanted(file), settings.id_field or "id")
    if layout == "wiki40b":
        return _wiki40b(plain, settings.source_field)
    return _wikipedia(plain, settings.source_field) if layout == "wikipedia" else plain


def _layout(first: dict[str, Any], text_field: str) -> str:
    """The layout of a file by its first record."""
    inner = first.get("meta")
    if isinstance(first.get("resourceType"), str):
        return "fhir"
    if isinstance(first.get("warc_headers"), dict) or (isinstance(inner, dict) and "warc_headers" in inner):
        return "oscar"
    text = first.get(text_field)
    text = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    if isinstance(text, str) and "_START_ARTICLE_" in text[:200]:
        return "wiki40b"
    if {"title", "url", "text"} <= first.keys() and "wikipedia.org" in str(first["url"]):
        return "wikipedia"
    return "plain"


def _entries(row: dict[str, Any]) -> Iterable[dict[str, Any]]:
    """A FHIR resource, or those of a bundle."""
    if row.get("resourceType") != "Bundle":
        return (row,)
    found = [entry.get("resource") for entry in row.get("entry") or () if isinstance(entry, dict)]
    return [resource for resource in found if isinstance(resource, dict)]


def taken(node: Any, path: str) -> list[Any]:
    """The values at a dotted path, lists on the way walked; taken out, so that no text stays in the meta.

    >>> row = {"note": [{"text": "発熱あり", "author": "x"}, {"text": "咳なし"}]}
    >>> taken(row, "note.text"), row
    (['発熱あり', '咳なし'], {'note': [{'author': 'x'}]})
    """
    if isinstance(node, list):
        found = [value for child in node for value in taken(child, path)]
        node[:] = [child for child in node if child != {}]
        return found
    if node is None:  # nothing on the way to the value is an empty value, not a missing one
        return [None]
    if not isinstance(node, dict):
        return []
    if path in node:
        value = node.pop(path)
        return value if isinstance(value, list) else [value]
    head, dot, rest = path.partition(".")
    if not dot or head not in node:
        return []
    found = taken(node[head], rest)
    if node[head] in ({}, []):
        del node[head]
    return found


def _plain(text_fields: tuple[str, ...], id_field: str) -> Callable[[dict[str, Any]], Mapped]:
    """Fields as they are named; all that is neither text nor id is meta."""
    single = text_fields[0] if len(text_fields) == 1 and "." not in text_fields[0] + id_field else None

    def plain(row: dict[str, Any]) -> Mapped:
        if single is not None and type(text := row.get(single)) is str:
            del row[single]
            return text, row.pop(id_field, None), row
        values = [value for field in text_fields for value in taken(row, field)]
        values = [value.decode("utf-8", "replace") if isinstance(value, bytes) else value for value in values]
        texts = [value or "" for value in values if value is None or isinstance(value, str)]  # null: an empty text
        if not texts:
            return "no_text"
        name = taken(row, id_field)
        return "\n".join(filter(None, texts)), name[0] if name else None, row

    return plain


def _oscar(text_fields: tuple[str, ...], id_field: str, source_field: str) -> Callable[[dict[str, Any]], Mapped]:
    """OSCAR 23.01, and the form that Hugging Face gives it. The address is left out: noise and personal data."""

    def oscar(row: dict[str, Any]) -> Mapped:
        inner: dict[str, Any] = row["meta"] if isinstance(row.get("meta"), dict) else row
        headers, notes = inner.get("warc_headers"), inner.get("metadata", inner)
        headers, notes = (value if isinstance(value, dict) else {} for value in (headers, notes))
        values = [row[field] for field in text_fields or ("content", "text") if field in row]
        texts = [value or "" for value in values if value is None or isinstance(value, str)]
        if not texts:
            return "no_text"
        meta = {key: notes[key] for key in ("quality_warnings", "categories") if notes.get(key)}
        language = notes.get("identification")
        if isinstance(language, dict):
            meta |= {"language": language.get("label"), "language_probability": language.get("prob")}
        own = taken(row, id_field) if id_field else []
        name = own[0] if own else headers.get("warc-record-id") or row.get("id")
        if not own and isinstance(name, str):
            name = name.strip("<>").removeprefix("urn:uuid:")
        return "\n".join(filter(None, texts)), name, meta | {source_field: "oscar"}

    return oscar


def _wiki40b(plain: Callable[[dict[str, Any]], Mapped], source_field: str) -> Callable[[dict[str, Any]], Mapped]:
    """Wiki-40B: the paragraphs, without section titles; the article's title goes into meta."""

    def wiki40b(row: dict[str, Any]) -> Mapped:
        mapped = plain(row)
        if not isinstance(mapped, tuple):
            return mapped
        text, name, meta = mapped
        try:
            text, name = _unquoted(text), _unquoted(name or meta.get("wikidata_id"))
        except ValueError:
            return "invalid_bytes_literal"
        _, *parts = MARKER.split(text) if "_START_" in text else ("", "PARAGRAPH", text)
        bodies = list(zip(parts[::2], (part.strip("\n") for part in parts[1::2]), strict=True))
        title = next((body.strip() for kind, body in bodies if kind == "ARTICLE"), "")
        paragraphs = [body.replace("_NEWLINE_", "\n").strip() for kind, body in bodies if kind == "PARAGRAPH"]
        meta = {key: value for key, value in meta.items() if key not in ("wikidata_id", "version_id")}
        meta |= {"title": title} if title else {}
        return "\n".join(filter(None, paragraphs)), name, {source_field: "wiki40b"} | meta

    return wiki40b


def _unquoted(text: Any) -> Any:
    r"""Text that an export wrote as a Python literal of its bytes: `b'\xe7\x97\x87'` is 症."""
    if not isinstance(text, str) or not re.match(r"""b(['"]).*\1\Z""", text, re.DOTALL):
        return text
    return text[2:-1].encode("ascii").decode("unicode_escape").encode("latin-1").decode("utf-8")


def _wikipedia(plain: Callable[[dict[str, Any]], Mapped], source_field: str) -> Callable[[dict[str, Any]], Mapped]:
    """WikiExtractor's records: the text without its title line; empty articles and redirects hold no document."""

    def wikipedia(row: dict[str, Any]) -> Mapped:
        mapped = plain(row)
        if not isinstance(mapped, tuple):
            return mapped
        text, name, meta = mapped
        first, _, rest = text.lstrip().partition("\n")
        text = (rest if first.strip() == meta.get("title") else text).strip()
        if not text or REDIRECT.match(text):
            return None
        return text, name, {source_field: "wikipedia"} | meta

    return wikipedia
