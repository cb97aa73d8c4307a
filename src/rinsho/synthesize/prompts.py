"""Templates of prompts: text files that a physician can edit, checked when they are read.

A file has up to three parts, divided by lines of `---`: the system turn, the user turn, and lists that take turns.

    あなたは臨床医です。
    ---
    「{topic}」の{aspect}を説明してください。
    読み: {reading}
    ---
    # one line an entry; aspect.drug is taken for drugs
    aspect: 診断
    aspect: 治療
    aspect.drug: 副作用

A file without `---` is the user turn. A placeholder is a name in braces; other braces stand as they are, and a line
whose placeholders are all empty is left out (no reading known: no line). `textbook.KIND.txt` is for topics of that
kind, and so for the two examinations; it goes before `textbook.txt`, built in or not.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from rinsho import recipe
from rinsho.chat import Message
from rinsho.client import conversation
from rinsho.errors import UserError
from rinsho.files import write_atomic
from rinsho.packing import number_of
from rinsho.synthesize.topics import family

__all__ = ["Prompts", "Template", "load", "unused", "write_templates"]

FOLDER = Path(__file__).parent / "prompts"
NEEDED = {
    "textbook": ("topic",), "physician_exam": ("topic",), "pharmacist_exam": ("topic",), "reading": ("text",),
    "instructions": ("examples", "count"), "answer": ("question",),
}  # fmt: skip
OTHERS = {
    "textbook": ("topic_kind", "reading"), "physician_exam": ("topic_kind", "reading"),
    "pharmacist_exam": ("topic_kind", "reading"), "reading": ("document",), "instructions": (),
    "answer": ("options", "count"),
}  # fmt: skip
OF_TOPICS = ("textbook", "physician_exam", "pharmacist_exam")

_PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_ENTRY = re.compile(r"([a-z_][a-z0-9_]*)(?:\.([^\s:：]+))?\s*[:：]\s*(\S.*)")


@dataclass(frozen=True, slots=True)
class Template:
    """One prompt.

    Attributes:
        kind: what it asks for: textbook, physician_exam, pharmacist_exam, reading, instructions, answer.
        system, user: the turns, with placeholders; the system turn may be empty.
        lists: name -> kind of topic (empty: all others) -> what the placeholder of this name takes by turns.
        hash: 16 hex digits, of the turns and the lists.
    """

    kind: str
    system: str
    user: str
    lists: Mapping[str, Mapping[str, tuple[str, ...]]]
    hash: str

    def choices(self, topic_kind: str, key: str, sample: int) -> dict[str, str]:
        """What its lists say in this sample: each list in its order, from a place drawn by the key.

        So the samples of one topic differ until a list is used up, and all entries are used alike over many topics.
        """
        found = {}
        for name, of_kind in self.lists.items():
            values = of_kind.get(topic_kind) or of_kind.get(family(topic_kind)) or of_kind[""]
            found[name] = values[(number_of(f"{key}/{name}") + sample) % len(values)]
        return found

    def messages(self, **values: str) -> tuple[Message, ...]:
        """The turns with their places filled; what is filled in is never looked at, so its braces stay.

        A list that `values` does not name takes the entry that the values draw.
        """
        known = {*NEEDED[self.kind], *OTHERS[self.kind], *self.lists}
        assert known.issuperset(values), f"{self.kind} has no place for {sorted(set(values) - known)}"
        assert set(NEEDED[self.kind]) <= set(values), f"{self.kind} needs {NEEDED[self.kind]}"
        drawn = {} if set(self.lists) <= set(values) else self.choices("", "\n".join(values.values()), 0)
        filled = {**drawn, **values}
        return conversation(_fill(self.user, filled), _fill(self.system, filled))


@dataclass(frozen=True, slots=True)
class Prompts:
    """The templates of a run, by name: a kind, or a kind of text and one of topic (`textbook.drug`).

    Attributes:
        templates: all of them.
        own: names of those in a folder of one's own that say something else than the built-in one of this name.
    """

    templates: Mapping[str, Template]
    own: frozenset[str] = frozenset()

    def of(self, kind: str, topic_kind: str = "") -> Template:
        """The template for a text about a topic: that of the topic's kind, of its family, or the general one."""
        return self.templates[self.name(kind, topic_kind)]

    def name(self, kind: str, topic_kind: str = "") -> str:
        """The name of this template."""
        names = (f"{kind}.{topic_kind}", f"{kind}.{family(topic_kind)}")
        return next((name for name in names if name in self.templates), kind)

    def messages(self, name: str, **values: str) -> tuple[tuple[Message, ...], str]:
        """The turns of a template with its places filled, and the template's hash."""
        template = self.templates[name]
        return template.messages(**values), template.hash

    def taken(self, kinds: Iterable[str], topic_kinds: Collection[str]) -> list[str]:
        """Names of the templates that texts of these kinds take, where the topics are of those kinds."""
        of_topics = {kind: {self.name(kind, topic_kind) for topic_kind in topic_kinds} for kind in OF_TOPICS}
        return sorted({name for kind in kinds for name in of_topics.get(kind, {kind})})

    def digest(self, names: Iterable[str]) -> str:
        """16 hex digits that change when one of these templates does: for the identity of a run."""
        return _hash("\n".join(f"{name} {self.templates[name].hash}" for name in sorted(names)))


def load(folder: str = "") -> Prompts:
    """The templates of a folder; one that is not in there is the built-in one. Empty: all built in.

    Raises:
        UserError: no such folder, a file of an unknown name, a placeholder that is unknown (file and line) or missing.
    """
    templates = {path.stem: _read(path, path.stem.partition(".")[0]) for path in sorted(FOLDER.glob("*.txt"))}
    own = {}
    if folder:
        if not Path(folder).is_dir():
            raise UserError(
                "not there",
                where=f"synthesize.prompts {folder}",
                expected="a folder of templates",
                todo=f"make one: rinsho synthesize prompts {folder}",
            )
        for path in sorted(Path(folder).iterdir()):
            if not path.is_file() or path.name.startswith((".", "~")) or path.name.endswith("~"):
                continue  # hidden ones and an editor's copies
            name = path.name.removesuffix(".txt")
            kind, dot, topic_kind = name.partition(".")
            if name == path.name or (name not in templates and not (kind in OF_TOPICS and dot and topic_kind)):
                raise recipe.unknown(path.name, [f"{one}.txt" for one in sorted(templates)], str(path), "template")
            own[name] = _read(path, kind)
    changed = (name for name, one in own.items() if name not in templates or one.hash != templates[name].hash)
    return Prompts({**templates, **own}, frozenset(changed))


def unused(prompts: Prompts, kinds: Collection[str], topic_kinds: Collection[str]) -> list[str]:
    """What of one's own templates no text takes, a line each: a misspelt kind, or a built-in one that goes before.

    Args:
        prompts: of `load`.
        kinds: of texts about topics that are asked for; templates of others are not looked at.
        topic_kinds: the kinds that the topics have.
    """
    lines, built_in, there = [], load().templates, sorted(set(topic_kinds))
    for kind in kinds if there else ():
        taken: dict[str, list[str]] = {}
        for topic_kind in there:
            taken.setdefault(prompts.name(kind, topic_kind), []).append(topic_kind)
        others = sorted(name for name in taken if name not in (kind, *prompts.own))
        for name in sorted(name for name in prompts.own if name.partition(".")[0] == kind):
            if name == kind and others:
                which = ", ".join(topic_kind for other in others for topic_kind in taken[other])
                files = ", ".join(f"{other}.txt" for other in others)
                lines.append(
                    f"your {name}.txt is not taken for topics of kind {which}: built-in {files} is, edit it too"
                )
            elif name not in taken:
                lines.append(f"your {name}.txt is taken for no topic; their kinds: {', '.join(there)}")
            else:
                known = built_in[name].lists if name in built_in else {}
                lines += _idle_entries(name, prompts.templates[name], known, taken[name])
    return lines


def _idle_entries(
    name: str, template: Template, known: Mapping[str, Mapping[str, object]], topic_kinds: Collection[str]
) -> Iterator[str]:
    """Entries of lists for a kind that no topic of the template has, but for those of the built-in template."""
    there = {*topic_kinds, *map(family, topic_kinds)}
    for entry, of_kind in template.lists.items():
        for topic_kind in of_kind:
            if topic_kind and topic_kind not in there and topic_kind not in known.get(entry, ()):
                kinds = ", ".join(topic_kinds)
                yield f"your {name}.txt: {entry}.{topic_kind} is taken for no topic; their kinds: {kinds}"


def write_templates(folder: Path) -> tuple[list[Path], int]:
    """The built-in templates, copied into the folder to be edited; a file that is there stays as it is.

    Returns:
        The files that were written, and how many were there.
    """
    built_in = sorted(FOLDER.glob("*.txt"))
    missing = [path for path in built_in if not (folder / path.name).exists()]
    for path in missing:
        write_atomic(folder / path.name, path.read_bytes())
    return [folder / path.name for path in missing], len(built_in) - len(missing)


def _read(path: Path, kind: str) -> Template:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UserError("not UTF-8", where=path, expected="a template in UTF-8", todo="save it as UTF-8") from None
    parts: list[list[tuple[int, str]]] = [[]]
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip() == "---":
            parts.append([])
        else:
            parts[-1].append((number, line.rstrip()))
    if len(parts) > 3:
        raise UserError(
            "more than two lines of ---",
            where=f"{path}:{parts[3][0][0] - 1}" if parts[3] else path,
            expected="system turn, user turn, lists",
        )
    system, user = ([], parts[0]) if len(parts) == 1 else (parts[0], parts[1])
    lists = _lists(parts[2], path, kind) if len(parts) == 3 else {}
    used = {name for name, _ in _check([*system, *user], {*NEEDED[kind], *OTHERS[kind], *lists}, path)}
    for name in NEEDED[kind]:
        if not any(f"{{{name}}}" in line for _, line in user):
            raise UserError(f"the user turn has no {{{name}}}", where=path, expected=f"the place of the {name}")
    for name in lists:
        if name not in used:
            raise UserError(f"a list {name}, but no {{{name}}}", where=path, expected="its place in a turn")
    turns = ["\n".join(line for _, line in part).strip() for part in (system, user)]
    return Template(kind, turns[0], turns[1], lists, _hash("\n---\n".join([*turns, *_flat(lists)])))


def _lists(lines: list[tuple[int, str]], path: Path, kind: str) -> dict[str, dict[str, tuple[str, ...]]]:
    found: dict[str, dict[str, tuple[str, ...]]] = {}
    for number, line in lines:
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        entry = _ENTRY.fullmatch(line.strip())
        if entry is None:
            raise UserError(
                "no entry of a list", where=f"{path}:{number}", expected="aspect: 診断, or aspect.drug: 副作用"
            )
        name, topic_kind, value = entry[1], entry[2] or "", entry[3]
        if name in (*NEEDED[kind], *OTHERS[kind]):
            raise UserError(f"{name} is no list: it is filled in", where=f"{path}:{number}", expected="another name")
        of_kind = found.setdefault(name, {})
        of_kind[topic_kind] = (*of_kind.get(topic_kind, ()), value)
    for name, of_kind in found.items():
        if "" not in of_kind:
            raise UserError(f"a list {name} for some kinds of topics alone", where=path, expected=f"a line `{name}: …`")
    return found


def _check(lines: list[tuple[int, str]], known: set[str], path: Path) -> Iterator[tuple[str, int]]:
    """The placeholders of the lines, every one of them known."""
    for number, line in lines:
        for name in _PLACEHOLDER.findall(line):
            if name not in known:
                raise recipe.unknown(name, sorted(known), f"{path}:{number}", "placeholder")
            yield name, number


def _fill(form: str, values: Mapping[str, str]) -> str:
    lines = []
    for line in form.split("\n"):
        names = _PLACEHOLDER.findall(line)
        if not names or any(values.get(name) for name in names):
            lines.append(_PLACEHOLDER.sub(lambda found: values.get(found[1], ""), line))
    return "\n".join(lines)


def _flat(lists: Mapping[str, Mapping[str, tuple[str, ...]]]) -> Iterator[str]:
    for name, of_kind in lists.items():
        for topic_kind, values in of_kind.items():
            yield f"{name}.{topic_kind}: " + "\n".join(values)


def _hash(text: str) -> str:
    return blake2b(text.encode(), digest_size=8).hexdigest()
