"""Stored answers -> rows of scores, each with chance, interval and baselines beside it. Nothing is generated here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from rinsho.evaluate import igakuqa
from rinsho.evaluate.ask import MODES, by_task
from rinsho.tasks import Item, labels
from rinsho.tasks.baselines import copy_lexicon, label, majority, naive_bayes, same_document
from rinsho.tasks.intervals import bootstrap_kappa, bootstrap_mean, chance_level, chance_points, wilson
from rinsho.tasks.item import NO_ANSWER, OR, rotated, unrotated_letter
from rinsho.tasks.jmed import CHOICE_TASKS
from rinsho.tasks.score import (
    accuracy,
    exact_f1,
    first_letter,
    kappa,
    official_partial_f1,
    overlap_f1,
    own_spelling,
    parse_list,
    said_letters,
    strict_letters,
)  # fmt: skip

Answers = Mapping[tuple[str, str, int], Mapping[str, Any]]  # (item id, mode, rotation) -> answer line
Letters = tuple[str, ...]  # what an answer chooses; empty where it chooses nothing


@dataclass(frozen=True)
class Baselines:
    """What trivial methods answer, by item id; empty where there is no training part."""

    majority: Mapping[str, str] = field(default_factory=dict)
    naive_bayes: Mapping[str, str] = field(default_factory=dict)
    copy_lexicon: Mapping[str, list[str]] = field(default_factory=dict)
    same_document: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Judged:
    """One task in one mode: per item whether (or how far) it is right, and every further figure of the whole.

    Attributes:
        metric: accuracy or exact_f1.
        values: headline value of each item, 0 to 1.
        chosen: the letters that each answer chooses, as the headline reads it; none for entities.
        overlap: overlap F1 of each item; none for choices.
    """

    metric: str
    values: tuple[float, ...]
    also: dict[str, Any]
    kappa_interval: tuple[float, float] | None = None
    chosen: tuple[Letters, ...] = ()
    overlap: tuple[float, ...] = ()

    @property
    def given(self) -> tuple[str, ...]:
        """What was chosen as one label an item: `A`, `A,C`, `None`."""
        return tuple(map(_label, self.chosen))


def baselines(train: Sequence[Item], tests: Sequence[Item], lexicon: Mapping[str, Sequence[str]]) -> Baselines:
    """The baselines' answers to the test items of every task that has training rows (see `rinsho.tasks.baselines`).

    `same_document` is given for tasks with a test document in the training part: elsewhere it is the majority.
    """
    tasks = {item.task for item in train}
    choices = [item for item in tests if item.kind == "choice" and item.task in tasks and not _is_exam(item)]
    lists = [item for item in tests if item.kind == "entities" and (item.task in tasks or lexicon)]
    known = {(item.task, item.document) for item in train}
    shared = {item.task for item in choices if (item.task, item.document) in known}
    again = [item for item in choices if item.task in shared]
    return Baselines(
        dict(zip([item.id for item in choices], majority(train, choices), strict=True)),
        dict(zip([item.id for item in choices], naive_bayes(train, choices), strict=True)),
        dict(zip([item.id for item in lists], copy_lexicon(train, lists, lexicon), strict=True)),
        dict(zip([item.id for item in again], same_document(train, again), strict=True)),
    )


@dataclass(frozen=True)
class Scoring:
    """All that turns answers into rows: `samples` bootstrap draws by `seed`."""

    answers: Answers
    base: Baselines
    samples: int
    seed: int

    def tables(self, items: Sequence[Item], modes: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
        """`scores`, `tags`, `cases` and `classes`: rows per task, mode and group or label (see `rinsho.evaluate`)."""
        tables: dict[str, list[dict[str, Any]]] = {"scores": [], "tags": [], "cases": [], "classes": []}
        for task, group in by_task(items):
            for mode in modes:
                if not any(mode in MODES[item.kind] for item in group):
                    continue
                names = {"task": task, "mode": mode}
                given = [self.answers.get((item.id, mode, 0), {}) for item in group]
                judged = judge(group, given, mode, self.samples, self.seed)
                row = names | self._row(group, judged, range(len(group)))
                row["also"] = {name: _finite(value) for name, value in judged.also.items()}
                row["kappa_interval"] = judged.kappa_interval
                row["baseline_kappa"] = _baseline_kappas(group, self.base)
                row["rotation"] = self._rotation(group, mode, judged)
                tables["scores"].append(row)
                tables["classes"] += [names | row for row in _classes(group, judged)]
                for kind in ("tags", "cases"):
                    for name, places in _groups(group, kind).items():
                        tables[kind].append(names | {"group": name} | self._row(group, judged, places, overlap=True))
        return tables

    def _row(
        self, items: Sequence[Item], judged: Judged, places: Sequence[int], overlap: bool = False
    ) -> dict[str, Any]:
        chosen = [items[place] for place in places]
        values = [judged.values[place] for place in places]
        if judged.metric == "accuracy":
            interval, how = wilson(round(sum(values)), len(values)), "Wilson"
        else:
            interval = bootstrap_mean(values, [item.document for item in chosen], self.samples, self.seed)
            how = "bootstrap over documents"
        chance, meaning = chance_level(chosen)
        further = {"overlap_f1": _mean([judged.overlap[place] for place in places])} if judged.overlap else {}
        return {
            "n": len(chosen), "metric": judged.metric, "score": _mean(values), "interval": interval,
            "interval_kind": how, "chance": chance, "chance_kind": meaning,
            "above_chance": interval is not None and interval[0] > chance,
            "baselines": _baseline_scores(chosen, self.base), **(further if overlap else {}),
        }  # fmt: skip

    def _rotation(self, items: Sequence[Item], mode: str, judged: Judged) -> dict[str, Any] | None:
        """How the score holds when the options stand in other orders; None where no other order was asked.

        Where a question has too few options for an order, the order it falls together with stands in; calculations
        keep their one answer. `same_answer` is over choices: the same option in all orders, and not no option.
        """
        turns = {
            turn for item in items for turn in range(1, len(item.options)) if (item.id, mode, turn) in self.answers
        }
        if not turns:
            return None
        means, same = [_mean(judged.values)], list(map(_is_legal, items, judged.chosen))
        for turn in sorted(turns):
            keys = [(item.id, mode, turn % max(1, len(item.options))) for item in items]
            chosen = _read_all(items, [self.answers.get(key, {}) for key in keys], mode).headline
            means.append(_mean(list(map(_is_right, items, chosen))))
            same = [held and first == now for held, first, now in zip(same, judged.chosen, chosen, strict=True)]
        choices = [float(held) for held, item in zip(same, items, strict=True) if item.kind == "choice"]
        return {"orders": len(means), "mean": _mean(means), "lowest": min(means), "same_answer": _mean(choices)}


def judge(items: Sequence[Item], rows: Sequence[Mapping[str, Any]], mode: str, samples: int, seed: int) -> Judged:
    """The items of one task with the answers to them (an empty row is no answer), scored.

    With 0 `samples` there are no bootstrap intervals, and an examination's `passes` is None. A row of a rotated
    question (`rotation`) is read in the order it was asked in; its letters are then put back.
    """
    if items[0].kind == "entities":
        return _judge_entities(items, [str(row.get("answer", "")) for row in rows], samples, seed)
    read = _read_all(items, rows, mode)
    return (_judge_exam if _is_exam(items[0]) else _judge_choice)(items, read, samples, seed)


@dataclass(frozen=True)
class _Readings:
    """The letters that the answers choose, sorted: by the benchmark's own rule (where it has none by ours, see
    `said_letters`), by the strict one, and for the headline."""

    official: list[Letters]
    strict: list[Letters]
    headline: list[Letters]


def _read_all(items: Sequence[Item], rows: Sequence[Mapping[str, Any]], mode: str) -> _Readings:
    both = [_read(item, row) for item, row in zip(items, rows, strict=True)]
    last = [mode == "free" and row.get("form") == "text_letter" for row in rows]  # each answer by its own form
    headline = [second if by_last else first for (first, second), by_last in zip(both, last, strict=True)]
    return _Readings([first for first, _ in both], [second for _, second in both], headline)


def _read(item: Item, row: Mapping[str, Any]) -> tuple[Letters, Letters]:
    """(letters by the official rule, letters by the strict one), those of a rotated question put back."""
    answer, turn = str(row.get("answer", "")), row.get("rotation", 0)
    asked = rotated(item, turn) if turn else item
    if _is_exam(item):
        official, strict = _parts(igakuqa.written(answer)), _parts(igakuqa.read_answer(asked, answer))
    else:
        strict = strict_letters(answer, labels(asked), asked.options)
        official = _first(answer) if _is_jmed(item) else said_letters(answer, labels(asked), asked.options)
        if len(item.gold) == 1:
            official, strict = (part if len(part) == 1 else () for part in (official, strict))
    if turn:
        official, strict = (
            tuple(sorted(unrotated_letter(item, letter, turn) for letter in part)) for part in (official, strict)
        )
    return official, strict


def _first(answer: str) -> Letters:
    found = first_letter(answer)
    return () if found == NO_ANSWER else (found,)


def _parts(text: str) -> Letters:
    return tuple(sorted(text.split(","))) if text else ()


def _is_exam(item: Item) -> bool:
    return item.year is not None or item.task == "igakuqa" or item.kind == "number"


def _is_jmed(item: Item) -> bool:
    """Whether the question is read by JMED-LLM's own rule: the first letter A to F anywhere."""
    return item.task in CHOICE_TASKS


def _is_right(item: Item, chosen: Letters) -> float:
    """All or nothing, whatever number of letters is right."""
    if _is_exam(item):
        return float(igakuqa.is_right(igakuqa.problem_of(item), ",".join(chosen)))
    return float(_label(chosen) == label(item))


def _is_legal(item: Item, chosen: Letters) -> bool:
    return bool(chosen) and set(chosen) <= set(labels(item))


def _label(chosen: Letters) -> str:
    return ",".join(chosen) or NO_ANSWER


def _judge_choice(items: Sequence[Item], read: _Readings, samples: int, seed: int) -> Judged:
    gold, given = list(map(label, items)), list(map(_label, read.headline))
    weights: Literal["linear"] | None = "linear" if items[0].ordered else None
    also: dict[str, Any] = {"kappa": kappa(gold, given, weights)}
    readings = {"official": read.official} if _is_jmed(items[0]) else {}  # elsewhere there is no official rule
    for name, part in (readings | {"strict": read.strict}).items():
        said = list(map(_label, part))
        also |= {f"accuracy_{name}": accuracy(gold, said), f"kappa_{name}": kappa(gold, said, weights)}
    readable = read.strict if _is_jmed(items[0]) else read.headline
    also["answer_rate"] = 1 - readable.count(()) / len(items)
    interval = bootstrap_kappa(gold, given, [item.document for item in items], samples, seed, weights=weights)
    return Judged("accuracy", tuple(map(_is_right, items, read.headline)), also, interval, tuple(read.headline))


def _judge_entities(items: Sequence[Item], given: Sequence[str], samples: int, seed: int) -> Judged:
    parsed = [parse_list(answer) for answer in given]
    lists = [found or [] for found in parsed]
    mapped = [own_spelling(item.passage, found) for item, found in zip(items, lists, strict=True)]
    gold = [item.gold for item in items]
    # what is no list is wrong, also where nothing was to be found (the official rules take it for an empty list)
    said = [found is not None for found in parsed]
    overlap = tuple(ok * overlap_f1(right, found) for ok, right, found in zip(said, gold, mapped, strict=True))
    exact = tuple(ok * exact_f1(right, found) for ok, right, found in zip(said, gold, mapped, strict=True))
    also: dict[str, Any] = {
        "overlap_f1": _mean(overlap),
        "official_exact_f1": _mean(list(map(exact_f1, gold, lists))),
        "official_partial_f1": _mean(list(map(official_partial_f1, gold, lists))),
        "answer_rate": 1 - parsed.count(None) / len(parsed),
        "entities_per_answer": _mean([float(len(set(found))) for found in lists]),
    }
    also["official_exact_f1_interval"] = bootstrap_mean(
        list(map(exact_f1, gold, lists)), [item.document for item in items], samples, seed
    )
    return Judged("exact_f1", exact, also, overlap=overlap)


def _judge_exam(items: Sequence[Item], read: _Readings, samples: int, seed: int) -> Judged:
    identifiers = list(map(igakuqa.problem_id, items))
    said, plain, tolerant = (
        dict(zip(identifiers, map(",".join, part), strict=True)) for part in (read.headline, read.official, read.strict)
    )
    values = list(map(_is_right, items, read.headline))
    worth, total = [item.points for item in items], igakuqa.total_points(items)
    share = bootstrap_mean(values, [item.document for item in items], samples, seed, weights=worth)
    interval = None if share is None else [bound * total for bound in share]
    also: dict[str, Any] = {
        "points": igakuqa.points(items, said),
        "points_total": total,
        "points_squared": sum(points * points for points in worth),  # total**2 / it: Kish's effective number
        "points_interval": interval,
        "points_chance": chance_points(items),
        "passes": igakuqa.passes(interval, total),
        "points_official": igakuqa.points(items, plain),
        "points_tolerant": igakuqa.points(items, tolerant, trim=True),
        "forbidden_chosen": igakuqa.num_forbidden(items, tolerant),
        "answer_rate": sum(bool(answer) for answer in tolerant.values()) / len(items),
    }
    for name, figure in (("text_only", False), ("figures", True)):
        part = [item for item in items if item.figure == figure]
        also[f"points_{name}"] = igakuqa.points(part, said)
        also[f"points_{name}_total"] = igakuqa.total_points(part)
        also[f"accuracy_{name}"] = igakuqa.num_right(part, said) / len(part) if part else None
    return Judged("accuracy", tuple(values), also, chosen=tuple(read.headline))


def _classes(items: Sequence[Item], judged: Judged) -> list[dict[str, Any]]:
    """One row per label of the choices: how often it is right, how often it was chosen, and both together.

    With several right letters each counts for itself. "None" is the choice of nothing.
    """
    golds, given, names = [], [], {NO_ANSWER}
    for item, chosen in zip(items, judged.chosen, strict=True) if judged.chosen else ():
        if item.kind == "choice":
            legal = set(labels(item))
            # the authors' reading of an examination takes any text between commas for a label
            letters = legal.intersection(chosen) if _is_exam(item) else set(chosen)
            golds.append({letter for part in item.gold for letter in part.split(OR)})
            given.append(letters or {NO_ANSWER})
            names |= legal | letters
    rows = []
    for name in sorted(names, key=lambda name: (name == NO_ANSWER, name)) if golds else ():
        right, said = sum(name in part for part in golds), sum(name in part for part in given)
        hits = sum(name in first and name in second for first, second in zip(golds, given, strict=True))
        rows.append({
            "label": name, "gold": right, "given": said, "precision": hits / said if said else None,
            "recall": hits / right if right else None, "f1": 2 * hits / (right + said) if right + said else None,
        })  # fmt: skip
    return rows


def _baseline_scores(items: Sequence[Item], base: Baselines) -> dict[str, float]:
    """Headline score of each baseline on these items; only those that answered all of them."""
    found: dict[str, float] = {}
    for name in ("majority", "naive_bayes", "same_document"):
        given = getattr(base, name)
        if items and all(item.id in given for item in items):
            found[name] = _mean([float(given[item.id] == label(item)) for item in items])
    if items and all(item.id in base.copy_lexicon for item in items):
        found["copy_lexicon"] = _mean([exact_f1(item.gold, base.copy_lexicon[item.id]) for item in items])
    return found


def _baseline_kappas(items: Sequence[Item], base: Baselines) -> dict[str, float | None]:
    """Kappa of each baseline that chose for all of these items."""
    weights: Literal["linear"] | None = "linear" if items[0].ordered else None
    found: dict[str, float | None] = {}
    for name in ("majority", "naive_bayes", "same_document"):
        given = getattr(base, name)
        if all(item.id in given for item in items):
            found[name] = _finite(kappa(list(map(label, items)), [given[item.id] for item in items], weights))
    return found


def _groups(items: Sequence[Item], kind: str) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for place, item in enumerate(items):
        for name in item.cases if kind == "cases" else (item.tag,):
            if name and (kind == "cases" or not _is_exam(item)):
                found.setdefault(name, []).append(place)
    return dict(sorted(found.items()))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value
