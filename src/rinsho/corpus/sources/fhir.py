"""Text of FHIR resources by field path: notes, narratives (XHTML), attachments (base64)."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from typing import Any

from rinsho.corpus.sources import encodings
from rinsho.errors import UserError

# What people write, not what a system renders: `text.div` of most resources repeats names and dates from other fields.
PATHS = (
    "AllergyIntolerance.note.text",
    "CarePlan.description",
    "CarePlan.note.text",
    "ClinicalImpression.description",
    "ClinicalImpression.summary",
    "ClinicalImpression.note.text",
    "Communication.payload.contentString",
    "Composition.section.text.div",
    "Condition.note.text",
    "DiagnosticReport.conclusion",
    "DiagnosticReport.presentedForm.data",
    "DocumentReference.content.attachment.data",
    "FamilyMemberHistory.note.text",
    "ImagingStudy.description",
    "ImagingStudy.note.text",
    "MedicationRequest.note.text",
    "Observation.valueString",
    "Observation.note.text",
    "Procedure.note.text",
    "QuestionnaireResponse.item.answer.valueString",
    "ServiceRequest.note.text",
)
SHIFT_JIS = {"shift_jis", "shift-jis", "sjis", "x-sjis", "windows-31j", "ms932", "cp932"}
BLOCK = re.compile(r"address|article|br|d[dlt]|div|h[1-6r]|[ou]l|li|p|pre|section|table|tr")


class _UnreadableError(Exception):
    """Why a value could not be read: a reason id."""


def mapper(paths: tuple[str, ...], id_field: str) -> Callable[[dict[str, Any]], Any]:
    """A function from a resource to (text, id, meta), to the reason why it is broken, or to None: no text in it.

    A path that starts with a capital letter is for resources of that type, any other for all. Lists on the way are
    walked, and so are elements within elements of the same name (sections, items). The meta is resource type and
    status; nothing else of the resource travels along, since most of it is about persons.
    """
    wanted = [path.split(".") for path in paths or PATHS]

    def fhir(row: dict[str, Any]) -> Any:
        kind = row.get("resourceType")
        own = [
            path[1:] if path[0][:1].isupper() else path for path in wanted if path[0] == kind or path[0][:1].islower()
        ]
        texts: list[str] = []
        try:
            for path in own:
                for value, holder in _walked(row, path):
                    text = _readable(value, path[-1], holder)
                    if text and text.strip():
                        texts.append(text.strip())
        except _UnreadableError as error:
            return str(error)
        if not texts:
            return None
        given = row.get(id_field or "id")
        name = f"{kind}/{given}" if isinstance(given, str) and not id_field else given
        meta = {"resourceType": kind, "status": row.get("status")}
        return "\n".join(texts), name, {key: value for key, value in meta.items() if isinstance(value, str)}

    return fhir


def html_text(source: str) -> str:
    r"""The text of HTML or XHTML: blocks on lines of their own, cells apart by a space, no empty lines.

    >>> html_text("<div><p>発熱<b>あり</b></p><table><tr><td>ＷＢＣ</td><td>9,800</td></tr></table></div>")
    '発熱あり\nＷＢＣ 9,800'
    """
    parser = _Narrative()
    parser.feed(source)
    parser.close()
    lines = (re.sub(r"[ \t\r\f\v\xa0]+", " ", line).strip() for line in "".join(parser.parts).split("\n"))
    return "\n".join(filter(None, lines))


def _walked(node: Any, path: list[str]) -> Iterator[tuple[Any, dict[str, Any]]]:
    """The values at a path, each with the object that holds it."""
    if isinstance(node, list):
        for child in node:
            yield from _walked(child, path)
    elif isinstance(node, dict) and path[0] in node:
        children = node[path[0]] if isinstance(node[path[0]], list) else [node[path[0]]]
        for child in children:
            if len(path) == 1:
                yield child, node
            else:
                yield from _walked(child, path[1:])
                if isinstance(child, dict) and path[0] in child:
                    yield from _walked(child, path)


def _readable(value: Any, name: str, holder: dict[str, Any]) -> str | None:
    if not isinstance(value, str):
        return None
    if name == "div":
        return html_text(value)
    return _attachment(value, str(holder.get("contentType") or "")) if name == "data" else value


def _attachment(data: str, content_type: str) -> str | None:
    """The text of base64 data; None for what is no text, such as PDF."""
    kind, _, parameters = content_type.lower().partition(";")
    kind = kind.strip()
    if kind and kind not in ("text/plain", "text/html", "application/xhtml+xml", "text/markdown", "text/csv"):
        return None
    try:
        raw = base64.b64decode("".join(data.split()), validate=True)
    except (binascii.Error, ValueError):
        raise _UnreadableError("invalid_base64") from None
    charset = re.search(r"charset\s*=\s*\"?([\w.:-]+)", parameters)
    text = _decoded(raw, charset[1] if charset else None)
    return html_text(text) if "html" in kind else text


def _decoded(raw: bytes, charset: str | None) -> str:
    if charset is None:
        try:
            return encodings.decode(raw, "attachment")
        except UserError:
            raise _UnreadableError("unknown_encoding") from None
    try:
        if charset in SHIFT_JIS or charset in ("euc-jp", "iso-2022-jp", "utf-8"):
            codec = encodings.codec("cp932" if charset in SHIFT_JIS else charset)
            return raw.decode(codec.name, codec.strict)
        return raw.decode(charset)
    except UnicodeError:
        raise _UnreadableError("invalid_charset") from None
    except LookupError:
        raise _UnreadableError("unknown_charset") from None


class _Narrative(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._hidden = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        self._hidden += tag in ("script", "style")
        self._gap(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style"):
            self._hidden = max(0, self._hidden - 1)
        self._gap(tag)

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.parts.append(data.replace("\n", " "))

    def _gap(self, tag: str) -> None:
        if BLOCK.fullmatch(tag):
            self.parts.append("\n")
        elif tag in ("td", "th"):
            self.parts.append(" ")
