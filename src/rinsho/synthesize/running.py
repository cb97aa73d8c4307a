"""All teachers at once: a thread around each, an answer file each, and one line of progress."""

from __future__ import annotations

import json
import queue
import threading
import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rinsho.client import Answer, Client, Counts, FailuresInARowError, Request
from rinsho.errors import UserError
from rinsho.files import write_atomic
from rinsho.progress import duration
from rinsho.run import Stage
from rinsho.synthesize.calls import ANSWER, Call
from rinsho.synthesize.local import Local
from rinsho.synthesize.trust import Limits, problem, tidy

if TYPE_CHECKING:
    from rinsho.progress import Progress
    from rinsho.synthesize import Recipe

Calls = Callable[[], Iterable[Call]]
METRIC_EVERY_SECONDS = 60.0
LOOK_EVERY_SECONDS = 1.0  # at the counts while no answer comes
NOBODY = "connect_error"  # nobody listens there: no fault of the request


@dataclass
class _Open:
    """Places of a teacher's calls that have no answer.

    Attributes:
        new: of calls that no earlier run gave up, in order.
        again: of the others, with their ids.
    """

    new: array[int] = field(default_factory=lambda: array("Q"))
    again: dict[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.new) + len(self.again)


class Teachers:
    """The recipe's teachers, ready to be asked; use as a context manager.

    Attributes:
        failed: id of each call that was given up for good -> why.

    Args:
        recipe: with the teachers.
        cache: folder of the answer files, `synthesize.<teacher>.jsonl`.
        stage: for progress, log, metrics and what is settled.
    """

    def __init__(self, recipe: Recipe, cache: Path, stage: Stage) -> None:
        self.recipe, self.stage = recipe, stage
        self.failed: dict[str, str] = {}
        self._cache, self._stack = cache, ExitStack()
        self._askers: dict[str, Client | Local] = {}
        self._stopping = threading.Event()
        self._given_up = cache / "synthesize-given-up.jsonl"  # also for other runs with these answers
        self._earlier: dict[str, str] = {}  # calls that were given up in earlier runs
        self._other_models: set[str] = set()  # teachers that answered as another model, which is told once
        self._limits = Limits(0, recipe.max_repeated_fraction, recipe.min_japanese_fraction)

    def __enter__(self) -> Teachers:
        with ExitStack() as opened:
            for name, teacher in self.recipe.teachers.items():
                answers = answer_file(self._cache, name)
                asker: Client | Local = (
                    Local(teacher, answers, self.stage)
                    if teacher.folder
                    else Client(teacher, answers, too_long_is_answer=True)
                )
                opened.enter_context(asker)
                self._askers[name] = asker
            self._stack = opened.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    # ------------------------------------------------------------------ asking

    def ask_once(self, step: str, calls: Calls, count: int, allowed: float) -> None:
        """`ask`; from then on the requests that failed are settled, so that a killed run goes on to the same product.

        Args:
            step: a name for a file.
            calls: gives the calls of the step, each time the same ones.
            count: of these.
            allowed: so many of them may fail.

        Raises:
            UserError: more failed, or a teacher gave up; running again asks those that were not answered.
        """
        settled = self.stage.partial / f"asked-{step}.json"
        if not settled.exists():
            failed = self.ask(calls, count, step)
            if len(failed) > allowed:
                kinds = ", ".join(f"{kind} {times}" for kind, times in Counter(failed.values()).most_common(3))
                raise UserError(
                    f"{len(failed):,} of {count:,} requests failed ({kinds})",
                    where="synthesize.max_failed_fraction",
                    expected=f"at most {self.recipe.max_failed_fraction:.1%} of them",
                    todo="run the same command again: only what was not answered is asked",
                )
            write_atomic(settled, json.dumps(failed))
        self.failed |= json.loads(settled.read_text(encoding="utf-8"))

    def ask(self, calls: Calls, count: int, label: str = "texts") -> dict[str, str]:
        """Asks what has no answer yet, all teachers at once; id -> why of the calls that were given up.

        A teacher that gives up stops no other: its error is raised when the others are done. What an earlier run gave
        up is asked again after everything else, so that such requests, one after the other, are not taken for a teacher
        that is gone.
        """
        self._earlier = _read_given_up(self._given_up)
        left = self._left(calls)
        asked = Counter({name: len(places) for name, places in left.items()})
        if not asked:
            return {}
        said: queue.Queue[tuple[str, Any]] = queue.Queue()
        self._stopping.clear()
        threads = [
            threading.Thread(
                target=self._run, args=(names, calls, left, said), daemon=True, name=f"synthesize-{names[0]}"
            )
            for names in self._lanes(left)
        ]
        for thread in threads:
            thread.start()
        try:
            with self.stage.progress(label, count, "texts", done=count - asked.total()) as progress:
                counts = {name: self._askers[name].counts for name in left}
                return self._hear(said, len(threads), _Told(progress, asked, counts, self.stage, label))
        finally:
            self._stopping.set()
            for asker in self._askers.values():
                asker.stop()
            for thread in threads:
                thread.join()

    def answer(self, call: Call) -> Answer:
        """What came back for a call that was asked; `error` is set where it was given up.

        Raises:
            UserError: the answer was kept once and is gone.
        """
        if call.id in self.failed:
            return Answer(call.id, error=self.failed[call.id])
        found = self._askers[call.teacher].kept(_request(call))
        if found is None:
            raise UserError(
                f"the answer to {call.id} is gone",
                where=answer_file(self._cache, call.teacher),
                expected="the answers that this run was paid for",
                todo="put the file back, or delete the run folder and begin anew",
            )
        return found

    # ------------------------------------------------------------------ threads

    def _left(self, calls: Calls) -> dict[str, _Open]:
        """Calls without an answer, by teacher."""
        left: dict[str, _Open] = {}
        for place, call in enumerate(calls()):
            if self._askers[call.teacher].is_kept(_request(call)):
                continue
            places = left.setdefault(call.teacher, _Open())
            if call.id in self._earlier:
                places.again[place] = call.id
            else:
                places.new.append(place)
        return left

    def _lanes(self, left: Iterable[str]) -> list[list[str]]:
        """Names that share a thread: models of this machine work one after the other."""
        local = [name for name in left if isinstance(self._askers[name], Local)]
        return [[name] for name in left if name not in local] + ([local] if local else [])

    def _run(
        self, names: list[str], calls: Calls, left: Mapping[str, _Open], said: queue.Queue[tuple[str, Any]]
    ) -> None:
        for name in names:
            asker = self._askers[name]
            try:
                for answer in asker.ask(self._missing(name, calls, left[name].new), in_order=False):
                    said.put((name, answer))
                if left[name].again:
                    self._ask_again(name, calls, left[name].again, said)
                if isinstance(asker, Local) and len(names) > 1:
                    asker.close_model()  # one at a time has room
            except BaseException as error:
                said.put((name, error))
        said.put(("", None))

    def _ask_again(
        self, name: str, calls: Calls, places: Mapping[int, str], said: queue.Queue[tuple[str, Any]]
    ) -> None:
        """What an earlier run gave up. A teacher that fails at these in a row, too, has not gone.

        Raises:
            UserError: it refuses now, or nobody listens.
        """
        left = set(places.values())
        try:
            for answer in self._askers[name].ask(self._missing(name, calls, places), in_order=False):
                left.discard(answer.id)
                said.put((name, answer))
        except FailuresInARowError as error:
            if error.kind == NOBODY:
                raise
            for id_ in sorted(left):
                said.put((name, Answer(id_, error=self._earlier[id_])))

    def _missing(self, name: str, calls: Calls, places: Iterable[int]) -> Iterator[Request]:
        """The requests at these places, which ascend."""
        wanted = iter(places)
        place = next(wanted, None)
        for here, call in enumerate(calls()):
            if place is None or self._stopping.is_set():
                return
            if here == place:
                place = next(wanted, None)
                if not self._askers[name].is_kept(request := _request(call)):  # an equal call may have brought it
                    yield request

    def _hear(self, said: queue.Queue[tuple[str, Any]], running: int, told: _Told) -> dict[str, str]:
        failed: dict[str, str] = {}
        ended: list[tuple[str, BaseException]] = []
        while running:
            try:
                name, found = said.get(timeout=LOOK_EVERY_SECONDS)
            except queue.Empty:
                told.look()
                continue
            if found is None:
                running -= 1
            elif isinstance(found, BaseException):
                ended.append((name, found))
                told.gone(name)
                said_why = str(found) if isinstance(found, UserError) else type(found).__name__
                self.stage.log(f"{name} gave up: {said_why}")
            else:
                if found.error:
                    failed[found.id] = found.error
                    self._note(found)
                self._look_at_model(name, found)
                told.take(name, found, self._bad(found))
        told.metric()
        if ended:
            raise _combined(ended)
        return failed

    def _bad(self, answer: Answer) -> bool:
        """Whether a look at the answer alone would set it aside; one that names an option is not looked at."""
        if answer.error or answer.id.startswith(f"{ANSWER}/"):
            return False
        return problem(tidy(answer.text), answer.finish_reason, self._limits) is not None

    def _look_at_model(self, name: str, answer: Answer) -> None:
        asked = self.recipe.teachers[name].model
        if answer.model not in ("", asked) and name not in self._other_models:
            self._other_models.add(name)
            self.stage.log(f"WARNING: {name} answers as model {answer.model!r}, not {asked!r}")

    def _note(self, answer: Answer) -> None:
        if self._earlier.get(answer.id) != answer.error:
            with self._given_up.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"id": answer.id, "error": answer.error}) + "\n")


class _Told:
    """What the progress line and metrics.jsonl tell while teachers write."""

    def __init__(
        self, progress: Progress, left: Counter[str], counts: Mapping[str, Counts], stage: Stage, label: str
    ) -> None:
        self.progress, self.left, self.stage, self.label = progress, left, stage, label
        self.started = self.metric_at = time.monotonic()
        self.done: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.tokens = self.failed = self.bad = 0
        self._counts, self._before = counts, {name: row.retries for name, row in counts.items()}

    def take(self, name: str, answer: Answer, bad: bool) -> None:
        """One answer; `bad`: it will be set aside, as far as a look at it alone can tell."""
        self.done[name] += 1
        self.answered[name] += not answer.error
        self.tokens += answer.prompt_tokens + answer.completion_tokens
        self.failed += bool(answer.error)
        self.bad += bad
        self.look(1)

    def gone(self, name: str) -> None:
        """A teacher gave up: nothing more comes from it."""
        del self.left[name]
        self.look()

    def look(self, new: int = 0) -> None:
        """Shows the present state when it is time to; `new` answers came."""
        self.progress.left = self._time_left()
        self.progress.update(
            new,
            tokens=self.tokens,
            failed=self.failed,
            retries=sum(map(self._retries, self._counts)),
            set_aside=f"{self.bad / max(self.answered.total(), 1):.1%}",
        )
        if time.monotonic() - self.metric_at > METRIC_EVERY_SECONDS:
            self.metric()

    def metric(self) -> None:
        """A line for metrics.jsonl."""
        self.metric_at = time.monotonic()
        self.stage.metric(
            label=self.label, seconds=round(self.metric_at - self.started, 1), done=dict(self.done),
            tokens=self.tokens, failed=self.failed, set_aside=self.bad,
        )  # fmt: skip

    def _retries(self, name: str) -> int:
        return self._counts[name].retries - self._before[name]

    def _time_left(self) -> str | None:
        """The teacher that will be done last, and those that said nothing yet; None: one teacher, which answers."""
        seconds = time.monotonic() - self.started
        open_ = {name: left - self.done[name] for name, left in self.left.items() if left > self.done[name]}
        times = {name: left * seconds / self.done[name] for name, left in open_.items() if self.answered[name]}
        parts = []
        if times and len(self._counts) > 1:
            name = max(times, key=lambda name: times[name])
            parts.append(f"slowest {name} {duration(times[name])} left")
        for name in open_:
            if name not in times:
                retries = self._retries(name)
                parts.append(f"{name}: no answer yet" + (f", {retries} retries" if retries else ""))
        return ", ".join(parts) if parts or len(self._counts) > 1 else None


def answer_file(cache: Path, teacher: str) -> Path:
    """Where a teacher's answers are kept."""
    return cache / f"synthesize.{teacher}.jsonl"


def cache_folder(recipe: Recipe, out: Path | None) -> Path:
    """Where all answers are kept: the recipe's folder, or `answers` beside the run folder."""
    return Path(recipe.cache) if recipe.cache else (out or Path()).resolve().parent / "answers"


def _read_given_up(path: Path) -> dict[str, str]:
    """Id -> why, of calls that were given up; a last line that a kill cut off is left out."""
    found: dict[str, str] = {}
    if path.exists():
        for line in path.read_bytes().split(b"\n"):
            with suppress(ValueError, KeyError, TypeError):
                row = json.loads(line)
                found[row["id"]] = row["error"]
    return found


def _request(call: Call) -> Request:
    return Request(call.id, call.messages, call.seed)


def _combined(ended: list[tuple[str, BaseException]]) -> BaseException:
    """One error for all teachers that gave up; what is no UserError is a defect and comes first."""
    for _, error in ended:
        if not isinstance(error, UserError):
            return error
    name, first = ended[0]
    assert isinstance(first, UserError)
    more = f"; {', '.join(name for name, _ in ended[1:])} gave up, too" if len(ended) > 1 else ""
    return UserError(
        f"{first.what} (teacher {name}{more})", where=first.where, expected=first.expected, todo=first.todo
    )
