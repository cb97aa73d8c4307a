"""Answers do not depend on who shares a call; slots are reused, calls stay within their size, nothing is lost."""

import random

import numpy as np
import pytest

from generate_many.toy_decoder import ToyDecoder, answer_of, logits_after
from rinsho.errors import UserError
from rinsho.generate.batcher import PROMPT_IDS_BESIDE, SHARED_IDS, Batcher, Feed
from rinsho.generate.jobs import text_job


def prompts_of(count, longest=30):
    draw = random.Random(5)
    return [[draw.randrange(40) for _ in range(draw.randrange(1, longest))] for _ in range(count)]


@pytest.mark.parametrize("slots", [1, 3, 8])
@pytest.mark.parametrize("keep_prefixes", [True, False])
def test_answers_are_those_of_one_at_a_time(slots, keep_prefixes):
    decoder = ToyDecoder(slots)
    prompts = prompts_of(25)
    found = Batcher(decoder, keep_prefixes).run([text_job(prompt, 9, {3}) for prompt in prompts])
    assert found == [answer_of(prompt, 9, {3}) for prompt in prompts]
    assert len({len(answer) for answer in found}) > 2
    assert keep_prefixes or decoder.held == [[]] * slots


def test_answers_share_calls():
    decoder = ToyDecoder(slots=4)
    Batcher(decoder).run([text_job([place], 8, ()) for place in range(4)])
    assert len(decoder.calls) == 8 and all(len(call) == 4 for call in decoder.calls)


def test_a_waiting_job_begins_as_soon_as_a_slot_is_free():
    decoder = ToyDecoder(slots=2)
    batcher, ends = Batcher(decoder), []
    for name, length in (("a", 2), ("b", 9), ("c", 2), ("d", 2)):
        batcher.add(text_job([1, 2], length, ()), lambda result, error, name=name: ends.append((name, len(result))))
    assert (batcher.running, batcher.waiting) == (0, 4)
    batcher.step()
    assert (batcher.running, batcher.waiting) == (2, 2)
    while batcher.step():
        pass
    assert ends == [("a", 2), ("c", 2), ("d", 2), ("b", 9)] and (batcher.running, batcher.waiting) == (0, 0)
    assert len(decoder.calls) == 9 and not batcher.step()


def test_a_prompt_is_read_in_parts_and_stops_nobody():
    decoder = ToyDecoder(slots=2, window=2_000, batch_tokens=512)
    batcher, heard = Batcher(decoder), []
    batcher.add(text_job([1], 50, ()), lambda result, error: heard.append(len(result)))
    batcher.step()
    prompt = list(np.arange(600) % 40)
    batcher.add(text_job(prompt, 3, ()), lambda result, error: heard.append(result))
    before = len(decoder.calls)
    while batcher.running + batcher.waiting > 1:
        batcher.step()
        assert min(len(part.ids) for part in decoder.calls[-1]) == 1  # the first answer goes on in every call
    sizes = [max(len(part.ids) for part in call) for call in decoder.calls[before:]]
    assert sizes[:5] == [PROMPT_IDS_BESIDE] * 4 + [600 - 4 * PROMPT_IDS_BESIDE]
    assert heard == [answer_of(prompt, 3)]
    alone = ToyDecoder(slots=2, window=2_000, batch_tokens=512)
    Batcher(alone).run([text_job(prompt, 1, ())])
    assert [len(call[0].ids) for call in alone.calls] == [512, 88]


def test_a_common_beginning_is_read_once():
    decoder = ToyDecoder(slots=2, batch_tokens=64)
    batcher = Batcher(decoder)
    head, other = list(range(SHARED_IDS + 4)), list(range(39, 19, -1))
    batcher.run([text_job([*head, 7], 2, ())])
    batcher.run([text_job([*other, 7], 2, ())])
    calls = len(decoder.calls)
    for prompt, rest in (([*head, 9, 9], 2), ([*other, 5], 1), (head, 1), (head[: SHARED_IDS - 1], SHARED_IDS - 1)):
        assert batcher.run([text_job(prompt, 3, ())]) == [answer_of(prompt, 3)]
        assert len(decoder.calls[calls][0].ids) == rest
        calls = len(decoder.calls)


def test_running_jobs_lie_side_by_side():
    decoder = ToyDecoder(slots=5)
    batcher = Batcher(decoder)
    batcher.run([text_job([size], size, ()) for size in (2, 6, 3, 5, 4)])  # 0, 2, 4, 3, 1 become free, in this order
    first = batcher.add(text_job([1, 2], 9, ()), lambda *_: None)
    batcher.step()
    place = first.slot
    batcher.add(text_job([3, 4], 9, ()), lambda *_: None)
    batcher.add(text_job([5, 6], 9, ()), lambda *_: None)
    batcher.step()
    slots = sorted(part.slot for part in decoder.calls[-1])
    assert len(slots) == 3 and slots[2] - slots[0] == 2 and place in slots


def test_logits_of_every_id_and_going_back():
    def job():
        first = yield Feed([1, 2, 3], every=True)
        again = yield Feed([9], at=1)
        last = yield Feed([5, 6], at=2, every=True)
        return first, again, last

    (found,) = Batcher(ToyDecoder(batch_tokens=2)).run([job()])
    wanted = [[[1], [1, 2], [1, 2, 3]], [[1, 9]], [[1, 9, 5], [1, 9, 5, 6]]]
    for logits, texts in zip(found, wanted, strict=True):
        assert np.array_equal(logits, np.stack([logits_after(ids) for ids in texts]))


def test_a_full_window_ends_an_answer_and_refuses_a_prompt():
    batcher = Batcher(ToyDecoder(window=10))
    assert batcher.run([text_job([1] * 8, 50, ()), text_job([1] * 10, 50, ())]) == [
        answer_of([1] * 8, 3),
        answer_of([1] * 10, 1),
    ]
    with pytest.raises(UserError, match="11 tokens"):
        batcher.run([text_job([2], 30, ()), text_job([1] * 11, 5, ())])
    assert (batcher.running, batcher.waiting) == (0, 0)


def test_cancelled_jobs_end_at_once_and_free_their_slots():
    decoder = ToyDecoder(slots=2)
    batcher, ends, closed = Batcher(decoder), [], []

    def job(name):
        try:
            result = yield from text_job([4, 5], 5, ())
            return result
        finally:
            closed.append(name)

    tickets = {name: batcher.add(job(name), lambda *_, name=name: ends.append(name)) for name in "abcd"}
    batcher.step()
    batcher.cancel(tickets["a"])
    batcher.cancel(tickets["c"])
    assert closed == ["a"] and batcher.running == 1
    while batcher.step():
        pass
    batcher.cancel(tickets["b"])  # over already
    assert ends == ["b", "d"]


def test_an_answer_may_cancel_another():
    batcher, tickets, ends = Batcher(ToyDecoder(slots=2)), {}, []

    def first(result, error):
        batcher.cancel(tickets["b"])
        ends.append("a")

    tickets["a"] = batcher.add(text_job([1], 2, ()), first)
    tickets["b"] = batcher.add(text_job([2], 9, ()), lambda *_: ends.append("b"))
    while batcher.step():
        pass
    assert ends == ["a"] and batcher.running == 0


def test_errors_end_the_job_that_raises_alone():
    def broken():
        yield Feed([1])
        raise KeyError("mine")

    def back():
        yield Feed([1])
        yield Feed([1], at=7)

    batcher, heard = Batcher(ToyDecoder(slots=3)), {}
    for name, job in (("broken", broken()), ("back", back()), ("good", text_job([3], 4, ()))):
        batcher.add(job, lambda result, error, name=name: heard.update({name: (result, type(error))}))
    while batcher.step():
        pass
    assert heard["broken"] == (None, KeyError) and heard["back"] == (None, ValueError)
    assert heard["good"] == (answer_of([3], 4), type(None))


@pytest.mark.parametrize("fails_at", [1, 2, 3])
def test_a_failing_decoder_ends_its_jobs_and_the_next_ones_are_right(fails_at):
    decoder = ToyDecoder(slots=2, batch_tokens=64)
    decoder.fails_at = fails_at
    batcher = Batcher(decoder)
    prompts = [list(range(SHARED_IDS + 4)), [2]]  # one that would be found again if its slot were taken to hold it
    with pytest.raises(RuntimeError, match="broke"):
        batcher.run([text_job(prompt, 4, ()) for prompt in prompts])
    assert batcher.run([text_job(prompt, 4, ()) for prompt in prompts]) == [answer_of(prompt, 4) for prompt in prompts]


def test_a_failing_decoder_ends_no_job_that_it_was_not_to_read_for():
    decoder, heard = ToyDecoder(slots=2), {}
    decoder.fails_at = 1
    batcher, prompts = Batcher(decoder), {"in the call": list(range(20)), "not yet": list(range(10))}
    for name, prompt in prompts.items():
        batcher.add(text_job(prompt, 4, ()), lambda result, error, name=name: heard.update({name: (result, error)}))
    while batcher.step():
        pass
    assert isinstance(heard["in the call"][1], RuntimeError)
    assert heard["not yet"] == (answer_of(prompts["not yet"], 4), None)


def test_logits_of_every_id_of_a_text_that_a_slot_holds():
    def job(ids):
        return (yield Feed(ids, every=True))

    batcher, ids = Batcher(ToyDecoder(slots=1)), list(range(SHARED_IDS + 4))
    batcher.run([text_job(ids, 3, ())])
    (logits,) = batcher.run([job(ids)])
    assert np.array_equal(logits, np.stack([logits_after(ids[: place + 1]) for place in range(len(ids))]))
