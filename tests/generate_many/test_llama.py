"""GGUF files in llama.cpp: logits of the model itself, slots that do not know of each other, files that are refused."""

import random
import shutil
import struct
import subprocess
import sys

import numpy as np
import pytest

from generate_many.toy_gguf import export, write_gguf
from rinsho.errors import UserError
from rinsho.generate.batcher import Batcher, Feed, Part
from rinsho.generate.jobs import choice_job, text_job
from rinsho.generate.opening import gguf_file, is_gguf, open_model
from rinsho.gguf_header import read_header
from rinsho.memory import gguf_files

llama_cpp = pytest.importorskip("llama_cpp")


@pytest.fixture(scope="module")
def opened(ours_gguf):
    found = open_model(ours_gguf, slots=3, threads=1)
    yield found
    found.decoder.close()


@pytest.fixture(scope="module")
def model(ours):
    from rinsho.generate.loading import load_model

    return load_model(ours)


def prompts_of(size, count, longest=60):
    draw = random.Random(3)
    return [[draw.randrange(4, size) for _ in range(draw.randrange(1, longest))] for _ in range(count)]


def logits_of(model, ids):
    import torch

    with torch.inference_mode():
        return model(torch.tensor([ids])).logits[0].numpy()


def test_logits_are_those_of_the_model(opened, model):
    decoder = opened.decoder
    (prompt,) = prompts_of(decoder.vocab_size, 1)
    for slot in range(3):
        decoder.forget(slot, 0)
    wanted = logits_of(model, prompt)
    assert wanted.std() > 0.4  # the model says something
    (every,) = decoder.feed([Part(1, 0, prompt, "every")])
    assert every.shape == wanted.shape and every.dtype == np.float32
    assert np.abs(every - wanted).max() < 0.01
    decoder.forget(1, 5)
    rest, other, nothing = decoder.feed(
        [Part(2, 0, prompt[:9], "last"), Part(1, 5, prompt[5:7], "last"), Part(0, 0, [7, 8], "none")]
    )
    assert nothing is None
    assert np.abs(rest - wanted[8]).max() < 0.01 and np.abs(other - wanted[6]).max() < 0.01
    kept = other.copy()
    decoder.feed([Part(0, 2, [5], "last")])
    assert np.array_equal(other, kept)  # a copy, not llama.cpp's memory


def test_many_logits_are_read_in_several_calls(opened, model):
    decoder = opened.decoder
    prompt = (prompts_of(decoder.vocab_size, 1) * 9)[0][:1] * 3 + list(range(4, 180))
    for slot in range(3):
        decoder.forget(slot, 0)
    every, last = decoder.feed([Part(1, 0, prompt, "every"), Part(0, 0, prompt[:4], "last")])
    assert np.abs(every - logits_of(model, prompt)).max() < 0.02
    assert np.abs(last[0] - every[3]).max() < 0.01


def gap_where_they_part(model, prompt, one, other):
    """How far apart the two likeliest ids are where two answers begin to differ."""
    shared = next(place for place in range(99) if one[place : place + 1] != other[place : place + 1])
    row = np.sort(logits_of(model, [*prompt, *one[:shared]])[-1])
    return row[-1] - row[-2]


def test_greedy_answers_are_those_of_the_engine(ours, opened, model):
    from rinsho.generate.engine import Generator

    engine = Generator(ours)
    prompts = prompts_of(opened.decoder.vocab_size, 24)
    wanted = engine.generate(prompts, 20)
    found = Batcher(opened.decoder).run([text_job(prompt, 20, [opened.end_id]) for prompt in prompts])
    same = [one == other for one, other in zip(found, wanted, strict=True)]
    assert sum(same) >= 20 and len({tuple(answer) for answer in found}) > 12
    for prompt, one, other in zip(prompts, found, wanted, strict=True):
        assert one == other or gap_where_they_part(model, prompt, one, other) < 0.01  # keys and values are float16


def test_choices_are_those_of_the_engine(ours, opened):
    from rinsho.generate.engine import Generator

    draw, prompts = random.Random(5), prompts_of(opened.decoder.vocab_size, 9)
    options = [[[draw.randrange(4, 300) for _ in range(draw.randrange(1, 6))] for _ in range(4)] for _ in prompts]
    found = Batcher(opened.decoder).run([choice_job(*each) for each in zip(prompts, options, strict=True)])
    for values, wanted in zip(found, Generator(ours).choose(prompts, options), strict=True):
        assert values == pytest.approx(wanted, abs=0.02)


def test_a_slot_has_the_whole_window_and_no_more(opened):
    window = opened.window
    assert window == 256
    prompts = [[5 + slot] * (window - 2) for slot in range(3)]
    found = Batcher(opened.decoder).run([text_job(prompt, 99, ()) for prompt in prompts])
    assert [len(answer) for answer in found] == [3, 3, 3]
    with pytest.raises(UserError, match="257 tokens"):
        Batcher(opened.decoder).run([text_job([5] * (window + 1), 9, ())])


def test_ids_that_the_model_does_not_have_end_their_job_alone(opened):
    batcher, heard = Batcher(opened.decoder), []
    batcher.add(text_job([opened.decoder.vocab_size], 3, ()), lambda result, error: heard.append(error))
    while batcher.step():
        pass
    assert isinstance(heard[0], RuntimeError)
    assert len(batcher.run([text_job([5], 3, ())])[0]) == 3


def test_a_foreign_model_answers_with_its_own_tokenizer(foreign, foreign_gguf):
    from rinsho.chat import Message
    from rinsho.generate.engine import Generator

    opened, engine = open_model(foreign_gguf, threads=1), Generator(foreign)
    assert (opened.form, opened.runtime, opened.manifest) == ("f32", "llama.cpp", {})
    ids = opened.encode("肺癌の患者は発熱を認め")
    assert ids == engine.encode("肺癌の患者は発熱を認め")
    assert Batcher(opened.decoder).run([text_job([1, *ids], 12, [opened.end_id])]) == engine.generate([[1, *ids]], 12)
    with pytest.raises(UserError, match="no chat form"):
        opened.prompt([Message("user", "発熱")])
    opened.decoder.close()


def test_opening_and_answering_needs_no_torch_and_says_nothing(ours_gguf):
    script = """
import sys
from pathlib import Path
from rinsho.chat import Message
from rinsho.generate.answerer import Answerer
from rinsho.generate.opening import open_model
opened = open_model(Path(sys.argv[1]), slots=2, threads=1)
answerer = Answerer(opened)
prompts = [answerer.prompt([Message("user", text)]) for text in ("発熱あり", "咳嗽なし")]
assert len(answerer.generate(prompts, 5)) == len(answerer.choose(prompts, [[[5, 6], [7]]] * 2)) == 2
answerer.spans(prompts, ["発熱あり", "咳嗽なし"], 9)
"".join(answerer.stream(prompts[0], 5))
assert not {"torch", "rinsho.generate.engine"} & set(sys.modules), "torch was loaded"
"""
    command = [sys.executable, "-c", script, str(ours_gguf)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_which_paths_are_gguf(ours, ours_gguf, tmp_path):
    assert is_gguf(ours_gguf) and is_gguf(tmp_path / "coming.gguf") and not is_gguf(ours) and not is_gguf(tmp_path)
    assert gguf_file(ours_gguf).name == "model-f32.gguf"
    (tmp_path / "mixed").mkdir()
    shutil.copy(ours_gguf / "model-f32.gguf", tmp_path / "mixed")
    (tmp_path / "mixed" / "pytorch_model.bin").touch()  # which nothing of ours opens
    assert is_gguf(tmp_path / "mixed") and gguf_files(tmp_path / "mixed") == [gguf_file(tmp_path / "mixed")]
    several = export(ours, tmp_path / "several", "f16", "q8_0")
    with pytest.raises(UserError, match=r"several models.*model-f16\.gguf, model-q8_0\.gguf"):
        open_model(several)
    assert open_model(several / "model-q8_0.gguf", slots=1).form == "q8_0"


def copied(ours_gguf, folder):
    shutil.copytree(ours_gguf, folder)
    return folder / "model-f32.gguf"


def test_files_that_llama_cpp_must_not_see_are_refused(ours, ours_gguf, tmp_path):
    whole = (ours_gguf / "model-f32.gguf").read_bytes()
    file = copied(ours_gguf, tmp_path / "copy")
    broken = {
        "not a GGUF file": b"GGML" + whole[4:],
        "cut off": whole[:-100],
        "cut off or damaged": whole[: len(whole) // 100],
        "damaged;": whole[:40],
        "version 9": whole[:4] + struct.pack("<I", 9) + whole[8:],
        "whole GGUF": whole[:8] + b"\xff" * 16 + whole[24:],
    }
    for what, data in broken.items():
        file.write_bytes(data)
        with pytest.raises(UserError, match=what):
            open_model(file)
    file.unlink()
    with pytest.raises(UserError, match="no such file"):
        open_model(file)
    write_gguf(ours, file, architecture="unheard")
    with pytest.raises(UserError, match=r"llama\.cpp cannot open it.*unheard"):
        open_model(file)
    for cut in range(16, 2_000, 13):  # wherever it ends
        file.write_bytes(whole[:cut])
        with pytest.raises(UserError):
            read_header(file)


def test_the_arcee_route_is_refused_for_our_models(ours, ours_gguf, tmp_path):
    file = copied(ours_gguf, tmp_path / "copy")
    write_gguf(ours, file, architecture="arcee")
    with pytest.raises(UserError, match=r"squared ReLU.*rinsho export"):
        open_model(file)


def test_wrong_options_are_told(ours_gguf, tmp_path):
    for options, what in (({"form": "int8"}, "--form"), ({"base": tmp_path}, "--base"), ({"window": 257}, "1 to 256")):
        with pytest.raises(UserError, match=what):
            open_model(ours_gguf, **options)
    for slots in (0, 300):
        with pytest.raises(UserError, match=f"{slots} texts at a time; expected 1 to 256"):
            open_model(ours_gguf, slots=slots)
    small = open_model(ours_gguf, slots=2, window=20)
    assert small.window == 20 and Batcher(small.decoder).run([text_job([5] * 19, 9, ())]) != [[]]


def test_a_tokenizer_that_is_not_the_models_is_refused(ours_gguf, foreign, tmp_path):
    file = copied(ours_gguf, tmp_path / "copy")
    write_gguf(foreign, file)  # a smaller vocabulary
    with pytest.raises(UserError, match="the model's own tokenizer"):
        open_model(file)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (file.parent / name).unlink()
    with pytest.raises(UserError, match="copy the whole export folder"):
        open_model(file)


def test_a_prefix_that_was_kept_changes_no_answer(opened):
    head = prompts_of(opened.decoder.vocab_size, 1)[0] * 2
    alone = [Batcher(opened.decoder).run([text_job([*head, end], 8, ())])[0] for end in range(4, 12)]
    assert Batcher(opened.decoder).run([text_job([*head, end], 8, ()) for end in range(4, 12)]) == alone

    def twice():
        first = yield Feed([*head, 5])
        yield Feed([6, 7, 8])
        again = yield Feed([5], at=len(head))
        return first, again

    ((first, again),) = Batcher(opened.decoder).run([twice()])
    assert np.abs(first - again).max() < 0.01
