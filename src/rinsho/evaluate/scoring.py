"""Stored answers -> rows of scores, each with chance, interval and baselines beside it. Nothing is generated here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from rinsho.evaluate import igakuqa
from rinsho.evaluate.ask import MODES, by_task
from rinsho.tasks import Item, labels
from rinsho.tasks.baselines import copy_lexicon, majority, naive_bayes
from rinsho.tasks.intervals import bootstrap_kappa, bootstrap_mean, chance_level, chance_points, wilson
from rinsho.tasks.item import NO_ANSWER
from rinsho.tasks.jmed import LINEAR_KAPPA
from rinsho.tasks.score import (
    accuracy,
    exact_f1,
    first_letter,
    kappa,
    official_partial_f1,
    overlap_f1,
    own_spelling,
    parse_list,
    strict_letter,
)  # fmt: skip

Answers = Mapping[tuple[str, str], Mapping[str, Any]]  # (item id, mode) -> answer line


@dataclass(frozen=True)
class Baselines:
    """What trivial methods answer, by item id; empty where there is no training part."""

    majority: Mapping[str, str] = field(default_factory=dict)
    naive_bayes: Mapping[str, str] = field(default_factory=dict)
    copy_lexicon: Mapping[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Judged:
    """One task in one mode: per item whether (or how far) it is right, and every further figure of the whole."""

    metric: str  # accuracy or exact_f1
    values: tuple[float, ...]  # headline value of each item, 0 to 1
    also: dict[str, float | None]
    kappa_interval: tuple[float, float] | None = None


def baselines(train: Sequence[Item], tests: Sequence[Item], lexicon: Mapping[str, Sequence[str]]) -> Baselines:
    """The baselines' answers to all test items of JMED-LLM, from the training part (see `rinsho.tasks.baselines`)."""
    choices = [item for item in tests if item.kind == "choice" and item.year is None]
    lists = [item for item in tests if item.kind == "entities"]
    if not train:
        return Baselines()
    return Baselines(
        dict(zip([item.id for item in choices], majority(train, choices), strict=True)),
        dict(zip([item.id for item in choices], naive_bayes(train, choices), strict=True)),
        dict(zip([item.id for item in lists], copy_lexicon(train, lists, lexicon), strict=True)),
    )


@dataclass(frozen=True)
class Scoring:
    """All that turns answers into rows: `samples` bootstrap draws by `seed`; `leaked` ids of test items, if known."""

    answers: Answers
    base: Baselines
    samples: int
    seed: int
    leaked: frozenset[str] | None = None

    def tables(self, items: Sequence[Item], modes: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
        """`scores`, `tags` and `cases`: one dictionary per task, mode and group (see `rinsho.evaluate`)."""
        tables: dict[str, list[dict[str, Any]]] = {"scores": [], "tags": [], "cases": []}
        for task, group in by_task(items):
            for mode in modes:
                if not any(mode in MODES[item.kind] for item in group):
                    continue
                names = {"task": task, "mode": mode}
                given = [self.answers.get((item.id, mode), {}) for item in group]
                judged = judge(group, given, mode, self.samples, self.seed)
                row = names | self._row(group, judged, range(len(group)))
                row["also"] = {name: _finite(value) for name, value in judged.also.items()}
                row["kappa_interval"] = judged.kappa_interval
                row["leaked"], row["clean"] = self._by_leak(group, judged)
                tables["scores"].append(row)
                for kind in ("tags", "cases"):
                    for name, places in _groups(group, kind).items():
                        tables[kind].append(names | {"group": name} | self._row(group, judged, places))
        return tables

    def _row(self, items: Sequence[Item], judged: Judged, places: Sequence[int]) -> dict[str, Any]:
        chosen = [items[place] for place in places]
        values = [judged.values[place] for place in places]
        if judged.metric == "accuracy":
            interval, how = wilson(round(sum(values)), len(values)), "Wilson"
        else:
            interval = bootstrap_mean(values, [item.document for item in chosen], self.samples, self.seed)
            how = "bootstrap over documents"
        chance, meaning = chance_level(chosen)
        return {
            "n": len(chosen), "metric": judged.metric, "score": _mean(values), "interval": interval,
            "interval_kind": how, "chance": chance, "chance_kind": meaning,
            "above_chance": interval is not None and interval[0] > chance,
            "baselines": _baseline_scores(chosen, self.base),
        }  # fmt: skip

    def _by_leak(self, items: Sequence[Item], judged: Judged) -> tuple[Any, Any]:
        """(score where the passage was trained on, score elsewhere); (None, None) where that is unknown."""
        if self.leaked is None:
            return None, None
        parts: tuple[list[float], list[float]] = ([], [])
        for item, value in zip(items, judged.values, strict=True):
            parts[0 if item.id in self.leaked else 1].append(value)
        known, other = ({"n": len(part), "score": _mean(part) if part else None} for part in parts)
        return known, other


def judge(items: Sequence[Item], rows: Sequence[Mapping[str, Any]], mode: str, samples: int, seed: int) -> Judged:
    """The items of one task with the answers to them (an empty row is no answer), scored."""
    given = [str(row.get("answer", "")) for row in rows]
    if items[0].kind == "entities":
        return _judge_entities(items, given)
    form = next((row["form"] for row in rows if row.get("form")), "letter")
    reading = "strict" if mode == "free" and form == "text_letter" else "official"
    if items[0].task == "igakuqa":
        return _judge_exam(items, given, reading)
    return _judge_choice(items, given, reading, samples, seed)


def _judge_choice(items: Sequence[Item], given: Sequence[str], reading: str, samples: int, seed: int) -> Judged:
    gold = [item.gold[0] for item in items]
    weights: Literal["linear"] | None = "linear" if items[0].task in LINEAR_KAPPA else None
    official = [first_letter(answer) for answer in given]
    strict = [strict_letter(answer, labels(item), item.options) for item, answer in zip(items, given, strict=True)]
    read = strict if reading == "strict" else official
    also: dict[str, float | None] = {
        "kappa": kappa(gold, read, weights),
        "accuracy_official": accuracy(gold, official),
        "kappa_official": kappa(gold, official, weights),
        "accuracy_strict": accuracy(gold, strict),
        "kappa_strict": kappa(gold, strict, weights),
        "answer_rate": 1 - strict.count(NO_ANSWER) / len(strict),
    }
    interval = bootstrap_kappa(gold, read, [item.document for item in items], samples, seed, weights=weights)
    return Judged("accuracy", tuple(map(float, map(str.__eq__, gold, read))), also, interval)


def _judge_entities(items: Sequence[Item], given: Sequence[str]) -> Judged:
    parsed = [parse_list(answer) for answer in given]
    lists = [found or [] for found in parsed]
    mapped = [own_spelling(item.passage, found) for item, found in zip(items, lists, strict=True)]
    gold = [item.gold for item in items]
    also: dict[str, float | None] = {
        "overlap_f1": _mean(list(map(overlap_f1, gold, mapped))),
        "official_exact_f1": _mean(list(map(exact_f1, gold, lists))),
        "official_partial_f1": _mean(list(map(official_partial_f1, gold, lists))),
        "answer_rate": 1 - parsed.count(None) / len(parsed),
        "entities_per_answer": _mean([float(len(set(found))) for found in lists]),
    }
    return Judged("exact_f1", tuple(map(exact_f1, gold, mapped)), also)


def _judge_exam(items: Sequence[Item], given: Sequence[str], reading: str) -> Judged:
    identifiers = [igakuqa.problem_id(item) for item in items]
    official = dict(zip(identifiers, map(igakuqa.written, given), strict=True))
    tolerant = {i: igakuqa.read_answer(item, answer) for i, item, answer in zip(identifiers, items, given, strict=True)}
    read = tolerant if reading == "strict" else official
    text_only = [item for item in items if not item.figure]
    also: dict[str, float | None] = {
        "points": igakuqa.points(items, read),
        "points_total": igakuqa.total_points(items),
        "points_chance": chance_points(items),
        "points_official": igakuqa.points(items, official),
        "points_tolerant": igakuqa.points(items, tolerant, trim=True),
        "points_text_only": igakuqa.points(text_only, read),
        "points_text_only_total": igakuqa.total_points(text_only),
        "forbidden_chosen": igakuqa.num_forbidden(items, tolerant),
        "answer_rate": sum(bool(answer) for answer in tolerant.values()) / len(items),
    }
    return Judged("accuracy", tuple(float(igakuqa.num_right([item], read)) for item in items), also)


def _baseline_scores(items: Sequence[Item], base: Baselines) -> dict[str, float]:
    """Headline score of each baseline on these items; only those that answered all of them."""
    found: dict[str, float] = {}
    for name in ("majority", "naive_bayes"):
        given = getattr(base, name)
        if items and all(item.id in given for item in items):
            found[name] = _mean([float(given[item.id] == item.gold[0]) for item in items])
    if items and all(item.id in base.copy_lexicon for item in items):
        found["copy_lexicon"] = _mean([exact_f1(item.gold, base.copy_lexicon[item.id]) for item in items])
    return found


def _groups(items: Sequence[Item], kind: str) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for place, item in enumerate(items):
        for name in item.cases if kind == "cases" else (item.tag,):
            if name and (kind == "cases" or item.year is None):
                found.setdefault(name, []).append(place)
    return dict(sorted(found.items()))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def _finite(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value
