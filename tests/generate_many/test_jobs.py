"""Jobs give what their logits say, by explicit computation; draws have the shares they should have."""

import numpy as np
import pytest

from generate_many.toy_decoder import ToyDecoder, answer_of, logits_after
from rinsho.generate.batcher import Batcher
from rinsho.generate.jobs import Spans, choice_job, span_job, text_job
from rinsho.generate.sampling import Sampling, likeliest, log_sum, sample
from rinsho.generate.spans import MAX_ITEMS, Passage, Pieces, SpanAnswer


def log_softmax(row):
    row = row.astype(np.float64)
    return row - np.log(np.exp(row).sum())


def run(job, **options):
    return Batcher(ToyDecoder(**options)).run([job])[0]


def test_text_tells_each_id_with_its_log_probability():
    heard = []
    answer = run(text_job([1, 2], 6, (), on_token=lambda *told: heard.append(told) or True, top_logprobs=3))
    assert [index for index, _ in heard] == answer == answer_of([1, 2], 6)
    for place, (index, token) in enumerate(heard):
        explicit = log_softmax(logits_after([1, 2, *answer[:place]]))
        assert token.logprob == pytest.approx(explicit[index], abs=1e-5)
        assert [other for other, _ in token.top] == list(np.argsort(-explicit, kind="stable")[:3])
        assert token.top[0] == (index, pytest.approx(token.logprob))


def test_text_ends_where_it_is_told_to():
    heard = []
    stopped = run(text_job([1, 2], 9, (), on_token=lambda index, token: heard.append(token) or len(heard) < 3))
    assert stopped == answer_of([1, 2], 3) and {token.logprob for token in heard} == {None}
    whole = answer_of([1, 2], 9)
    assert run(text_job([1, 2], 9, {whole[4]})) == whole[: whole.index(whole[4])]
    assert run(text_job([1, 2], 0, ())) == []


def test_draws_are_alike_for_a_seed_alone():
    def draw(seed):
        return run(text_job([1, 2], 12, (), Sampling(temperature=1.0, seed=seed)))

    assert draw(1) == draw(1) and len({tuple(draw(seed)) for seed in range(6)}) == 6
    assert run(text_job([1], 5, (), Sampling(temperature=1.0, top_k=1))) == answer_of([1], 5)


@pytest.mark.parametrize("size", [30, 3_000])
@pytest.mark.parametrize(("top_p", "top_k"), [(1.0, 0), (0.7, 0), (1.0, 5), (0.8, 9), (0.95, 2_000), (1e-9, 0)])
def test_drawn_shares_are_those_of_a_sorted_vocabulary(size, top_p, top_k):
    logits = np.random.default_rng(0).normal(size=size, scale=1.5).astype(np.float32)
    order = np.argsort(-logits, kind="stable")
    shares = np.exp(logits[order].astype(np.float64) / 0.8)
    if top_k:
        shares[top_k:] = 0
    shares /= shares.sum()
    kept = int(np.searchsorted(shares.cumsum(), top_p)) + 1
    shares[kept:] = 0
    shares /= shares.sum()
    rng, sampling = np.random.default_rng(2), Sampling(0.8, top_p, top_k)
    draws = np.array([sample(logits, sampling, rng) for _ in range(4_000)])
    assert set(draws) <= set(order[:kept][shares[:kept] > 0])
    for index, share in list(zip(order, shares, strict=True))[:8]:
        assert (draws == index).mean() == pytest.approx(share, abs=4 * (share * (1 - share) / 4_000) ** 0.5 + 1e-9)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("top_p", "top_k"), [(1.0, 0), (0.7, 0), (1.0, 2)])
@pytest.mark.parametrize("temperature", [5e-324, 1e-308, 1e-9])
def test_the_smallest_temperatures_take_the_likeliest(temperature, top_p, top_k):
    logits = np.array([3, 11, -np.inf, 10, -40], np.float32)
    assert sample(logits, Sampling(temperature, top_p, top_k), np.random.default_rng(1)) == 1


def test_the_likeliest_ids_are_in_order_and_sums_are_exact():
    logits = np.array([1, 5, 3, 5, -np.inf, 2], np.float32)
    assert likeliest(logits, 4) == [1, 3, 2, 5] and len(likeliest(logits, 99)) == 6
    assert log_sum(np.full(100_000, 50, np.float32)) == pytest.approx(50 + np.log(100_000), abs=1e-9)


def test_choices_are_summed_over_their_ids_and_share_their_beginnings():
    options = [[5, 6, 7], [5, 6, 8], [9], [5, 6], [5, 1, 2, 3], [9]]
    decoder = ToyDecoder(slots=1)
    (sums,) = Batcher(decoder).run([choice_job([1, 2, 3], options)])
    for option, value in zip(options, sums, strict=True):
        explicit = sum(
            log_softmax(logits_after([1, 2, 3, *option[:place]]))[index] for place, index in enumerate(option)
        )
        assert value == pytest.approx(explicit, abs=1e-5)
    assert sum(len(part.ids) for call in decoder.calls for part in call) == 3 + 3 + 1  # 5 1 2; 6 after it


PIECES = [None, b"['", b"[]", b"', '", b"']", b"'", b",", b" '", b"]", *(text.encode() for text in "肺癌発熱咳"),
          "肺癌".encode(), "発熱".encode(), *(bytes([byte]) for byte in range(256))]  # fmt: skip


def explicit_spans(prompt, passage, pieces, limit, vocab_size):
    """(item, probability) by looking at every step alone."""
    answer, ids, found, chance = SpanAnswer(Passage(passage, pieces)), list(prompt), {}, 1.0
    for _ in range(limit):
        legal = answer.allowed()
        if not len(legal):
            break
        row = logits_after(ids, vocab_size).astype(np.float64)[legal]
        shares = np.exp(row) / np.exp(row).sum()
        index = int(legal[row.argmax()])
        ending = [place for place, other in enumerate(legal) if ends(answer, int(other))]
        count, share = len(answer.items), shares[row.argmax()]
        answer.advance(index)
        ids.append(index)
        if len(answer.items) > count:
            found.setdefault(answer.items[-1], chance * shares[ending].sum())
            chance = share / shares[ending].sum()
        else:
            chance *= share
    return found, len(ids) - len(prompt)


def ends(answer, index):
    """Whether a legal id writes the closing quote, by writing it."""
    import copy

    tried = copy.copy(answer)
    tried.items = list(answer.items)
    tried.advance(index)
    return len(tried.items) > len(answer.items)


def test_spans_are_spans_with_the_product_of_their_shares():
    pieces = Pieces(PIECES)
    size, several, fed = len(PIECES), 0, 0
    for seed in range(30):
        prompt, passage = [seed, 3], "肺癌と発熱、咳は'あり'。"
        wanted, steps = explicit_spans(prompt, passage, pieces, 40, size)
        decoder = ToyDecoder(slots=1, window=200, vocab_size=size, batch_tokens=64)
        (spans,) = Batcher(decoder).run([span_job(prompt, passage, pieces, 40)])
        found = spans.items
        assert [item for item, _ in found] == list(wanted) and len(wanted) == len(dict(found))
        assert [chance for _, chance in found] == pytest.approx(list(wanted.values()))
        assert all(item in passage and 0 < chance <= 1 for item, chance in found)
        several += len(found) > 1
        fed += len(decoder.calls) < steps
    assert several > 5 and fed > 5  # what alone is legal is not asked for


def test_an_item_that_is_cut_off_is_left_out_and_the_answer_is_not_whole():
    pieces, whole = Pieces(PIECES), []
    for limit in range(1, 60):
        wanted, steps = explicit_spans([19, 3], "肺癌と発熱", pieces, limit, len(PIECES))
        decoder = ToyDecoder(slots=1, window=90, vocab_size=len(PIECES), batch_tokens=64)
        (spans,) = Batcher(decoder).run([span_job([19, 3], "肺癌と発熱", pieces, limit)])
        assert dict(spans.items).keys() == wanted.keys()
        whole.append(spans.whole)
        assert whole[-1] or steps == limit
    assert whole == sorted(whole) and 20 < whole.index(True) < 40
    (spans,) = Batcher(ToyDecoder(1, 8, len(PIECES), 64)).run([span_job([19, 3], "肺癌と発熱", pieces, 59)])
    assert not spans.whole  # the window
    assert run(span_job([1], "", pieces, 9), vocab_size=len(PIECES)) == Spans([], True)


def test_an_answer_with_all_the_items_there_may_be_is_not_whole():
    pieces = Pieces([None, b"['", b"[]", b"', '", b"']", "咳".encode()])

    class Insists(ToyDecoder):
        """Goes on listing as long as it may, or for so many items."""

        items = 99

        def _read(self, part):
            super()._read(part)
            row = np.zeros((1, 6), np.float32)
            row[0, [1, 3]] = 5, 5 if self.held[part.slot].count(5) < self.items else -5
            return row

    decoder = Insists(1, 90, 6, 64)
    (spans,) = Batcher(decoder).run([span_job([0], "咳", pieces, 80)])
    assert [item for item, _ in spans.items] == ["咳"] and not spans.whole
    decoder.items = MAX_ITEMS - 1
    assert Batcher(decoder).run([span_job([0], "咳", pieces, 80)])[0].whole


def test_what_may_follow_is_worked_out_once_for_each_id(monkeypatch):
    looked = []
    after = Passage.after
    monkeypatch.setattr(Passage, "after", lambda self, ends: looked.append(ends) or after(self, ends))
    pieces = Pieces(PIECES)
    answer = SpanAnswer(Passage("肺癌と発熱", pieces))
    for index in (1, PIECES.index("肺癌".encode()), 3, PIECES.index("発熱".encode())):
        legal = [int(other) for other in answer.allowed()]
        assert index in legal
        closing = {PIECES[other] for other in legal if answer.closes(other)}
        assert closing in (set(), {b"'", b"']", b"', '"})
        answer.advance(index)
    assert answer.closes(3) and answer.closes(4) and answer.items == ["肺癌"]
    assert len(looked) == 3  # for the beginning of an item, and after each of the two pieces
