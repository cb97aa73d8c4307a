"""A model of this machine as a teacher: asked like an endpoint, its answers in the same kind of file."""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rinsho.client import Answer, Counts, Request
from rinsho.client.answers import Answers
from rinsho.client.asking import answer_of, body, now
from rinsho.run import digest

if TYPE_CHECKING:
    from rinsho.generate.batcher import Job
    from rinsho.generate.opening import Opened
    from rinsho.run import Stage
    from rinsho.synthesize import Teacher

EXTRA = ("top_p", "top_k")  # further settings of an answer that a local model knows


class Local:
    """A model folder, adapter folder or GGUF file; has the methods of `rinsho.client.Client`.

    It is opened by the first request that is not answered yet. An answer is kept under the content of the model, not
    its path.

    Attributes:
        counts: what was asked so far.

    Raises:
        UserError: another process uses the answer file, or the model is not there.
    """

    def __init__(self, teacher: Teacher, answers: Path, stage: Stage) -> None:
        self.teacher, self.counts, self._stage = teacher, Counts(), stage
        self._model = model_hash(teacher)
        self._answers = Answers(answers)
        self._opened: Opened | None = None
        self._stopping = threading.Event()

    def __enter__(self) -> Local:
        return self

    def __exit__(self, *_: object) -> None:
        self.close_model()
        self._answers.close()

    def stop(self) -> None:
        """Ends an `ask` that another thread waits for; answers under way are lost."""
        self._stopping.set()

    def is_kept(self, request: Request) -> bool:
        """Whether an answer is kept; reads no file."""
        return local_key(self.teacher, self._model, request) in self._answers

    def kept(self, request: Request) -> Answer | None:
        """The answer that is kept, if there is one."""
        row = self._answers.get(local_key(self.teacher, self._model, request))
        return None if row is None else answer_of(request, row)

    def close_model(self) -> None:
        """Gives the model's memory back."""
        if self._opened is not None:
            self._opened.decoder.close()
            self._opened = None

    def ask(self, requests: Iterable[Request], in_order: bool = False) -> Iterator[Answer]:  # noqa: ARG002
        """The answers, as they come.

        Raises:
            UserError: the model does not fit this machine, cannot be opened, or has no chat form.
        """
        from rinsho.generate.batcher import Batcher

        source, found = iter(requests), deque[tuple[Request, Any, BaseException | None]]()
        self._stopping.clear()
        batcher: Batcher | None = None
        while not self._stopping.is_set():
            while batcher is None or batcher.running + batcher.waiting <= self.teacher.slots:
                request = next(source, None)
                if request is None:
                    break
                # no answer depends on earlier ones: a run that was killed writes what it would have written
                batcher = batcher or Batcher(self._open().decoder, keep_prefixes=False)
                self.counts.requests += 1
                batcher.add(self._job(request), partial(_ended, found, request))
            if batcher is None or not (batcher.step() or found):
                break
            while found:
                yield self._take(*found.popleft())
        self._answers.sync()

    def _open(self) -> Opened:
        if self._opened is None:
            from rinsho.generate.opening import open_model
            from rinsho.memory import settle

            folder, slots, form = Path(self.teacher.folder), self.teacher.slots, self.teacher.form
            self._stage.log(f"{folder.name}: {settle(folder, form, slots)}")
            self._opened = open_model(folder, slots=slots, form=form)
        return self._opened

    def _job(self, request: Request) -> Job[dict[str, Any]]:
        """Answers one request; its row, as answer files have it."""
        from rinsho.conversation import asked, tuned_template
        from rinsho.generate.batcher import NoRoomError
        from rinsho.generate.jobs import text_job
        from rinsho.generate.sampling import Sampling

        started, opened, teacher = time.monotonic(), self._open(), self.teacher
        prompt = opened.prompt(asked(request.messages, tuned_template(opened.manifest, opened.where)))
        seed = teacher.seed if request.seed is None else request.seed
        extra: Any = {name: value for name, value in teacher.extra.items() if name in EXTRA}
        sampling = Sampling(temperature=teacher.temperature, seed=1 if seed is None else seed, **extra)
        try:
            ids = yield from text_job(prompt, teacher.max_tokens, (opened.end_id,), sampling)
            full = len(ids) >= teacher.max_tokens or len(prompt) + len(ids) >= opened.window
            reason = "length" if full else "stop"
        except NoRoomError:
            ids, reason = [], "too_long"
        return {
            "text": opened.tokenizer.decode(ids, skip_special_tokens=True),
            "finish_reason": reason,
            "prompt_tokens": len(prompt),
            "completion_tokens": len(ids),
            "seconds": round(time.monotonic() - started, 3),
            "time": now(),
        }

    def _take(self, request: Request, row: dict[str, Any] | None, error: BaseException | None) -> Answer:
        if row is None:
            raise error or RuntimeError("an answer without a row")
        self._answers.put(local_key(self.teacher, self._model, request), row)
        self.counts.attempts += 1
        self.counts.prompt_tokens += row["prompt_tokens"]
        self.counts.completion_tokens += row["completion_tokens"]
        return answer_of(request, row, cached=False)


def model_hash(teacher: Teacher) -> str:
    """What answers: the content of the model, of an adapter's base too, and the number form that was asked for."""
    folder = Path(teacher.folder)
    parts = [digest(folder), str(teacher.form)]
    if (folder / "adapter_config.json").is_file():
        from rinsho.adapters import find_base

        parts.append(digest(find_base(folder)))
    return blake2b("/".join(parts).encode(), digest_size=16).hexdigest()


def local_key(teacher: Teacher, model: str, request: Request) -> str:
    """What was asked of which model (`model_hash`), as a hash."""
    asked = {**body(teacher, request), "model": model}
    return blake2b(json.dumps(asked, sort_keys=True).encode(), digest_size=16).hexdigest()


def _ended(found: deque[Any], request: Request, row: Any, error: BaseException | None) -> None:
    found.append((request, row, error))
