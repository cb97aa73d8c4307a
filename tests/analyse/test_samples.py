"""What a model writes, and what is told of it."""

import csv
import json

import pytest

from rinsho.analyse.samples import PROMPTS, REPORT_PROMPT, SampleSettings, read_prompts, repeated_share, samples
from rinsho.chat import TEMPLATE
from rinsho.errors import UserError
from rinsho.generate.engine import Generator
from toy_models import toy_folder


def rows_of(folder):
    return [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]


def made(tmp_path, model, name="out", seed=1, **settings):
    folder = tmp_path / name
    folder.mkdir()
    return samples(model, folder, SampleSettings.model_validate({"max_new_tokens": 12} | settings), seed), folder


def prompts_file(tmp_path, *lines, name="prompts.txt"):
    path = tmp_path / name
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_a_base_model_continues_and_a_tuned_one_is_asked(tmp_path):
    prompts = prompts_file(tmp_path, "急性心筋梗塞の", "", "肺癌、")
    base, tuned = toy_folder(tmp_path / "base", chat=False), toy_folder(tmp_path / "tuned")
    part, folder = made(tmp_path, base, "one", prompts=prompts, count=0)
    generator = Generator(base)
    begin = generator.tokenizer.bos_token_id
    wanted = generator.generate([[begin, *generator.encode(text)] for text in ("急性心筋梗塞の", "肺癌、")], 12)
    assert [row["text"] for row in rows_of(folder)] == [generator.tokenizer.decode(ids, True) for ids in wanted]
    assert [row["tokens"] for row in rows_of(folder)] == [len(ids) for ids in wanted]
    assert part.numbers["form"] == "continuation"
    (tuned / "chat_template.jinja").write_text(TEMPLATE)
    part, folder = made(tmp_path, tuned, "two", prompts=prompts, count=0)
    assert part.numbers["form"] == "chat"
    assert rows_of(folder)[0]["prompt_tokens"] > len(generator.encode("急性心筋梗塞の")) + 1


def test_draws_depend_on_the_seed_alone(tmp_path):
    model = toy_folder(tmp_path / "m", chat=False)
    first = prompts_file(tmp_path, "肺癌", name="a.txt")
    both = prompts_file(tmp_path, "肺癌", "発熱", name="b.txt")
    _, one = made(tmp_path, model, "one", prompts=first, count=3)
    _, two = made(tmp_path, model, "two", prompts=both, count=3)
    _, three = made(tmp_path, model, "three", seed=2, prompts=first, count=3)
    texts = [[row["text"] for row in rows_of(folder) if row["prompt"] == 1] for folder in (one, two, three)]
    assert texts[0] == texts[1]
    assert texts[0][0] == texts[2][0]  # the likeliest one
    assert texts[0][1:] != texts[2][1:]
    assert len(set(texts[0])) == 4


def test_the_end_is_told(tmp_path):
    model = toy_folder(tmp_path / "m", chat=False, window=64)
    prompts = prompts_file(tmp_path, "肺癌", "の" * 100)
    part, folder = made(tmp_path, model, prompts=prompts, count=8, max_new_tokens=70)
    generator = Generator(model)
    for row in rows_of(folder):
        room = min(70, 65 - row["prompt_tokens"])
        assert row["ended"] is (row["tokens"] < room)
    assert part.numbers["too_long"] == [2]
    assert "left out" in part.html
    assert generator.window == 64


def test_an_answer_that_fills_the_window_did_not_end_and_one_token_less_did(tmp_path, monkeypatch):
    def answers(self, prompts, most, temperature, seed):
        return [[7] * (self.window + 1 - len(ids) - bool(temperature)) for ids in prompts]

    monkeypatch.setattr(Generator, "generate", answers)
    model = toy_folder(tmp_path / "m", chat=False, window=64)
    _, folder = made(tmp_path, model, prompts=prompts_file(tmp_path, "肺癌"), max_new_tokens=100)
    assert [(row["tokens"] + row["prompt_tokens"], row["ended"]) for row in rows_of(folder)] == [
        (65, False),
        (64, True),
    ]


def test_texts_stand_in_the_page_and_the_file_alone(tmp_path, capfd):
    model = toy_folder(tmp_path / "m", chat=False)
    prompts = prompts_file(tmp_path, "肺癌<script>の", "発熱")
    part, folder = made(tmp_path, model, prompts=prompts)
    told = capfd.readouterr()
    for text in (json.dumps(part.numbers, ensure_ascii=False), part.markdown, told.err, told.out,
                 (folder / "samples.csv").read_text()):  # fmt: skip
        assert "肺癌" not in text
        assert not any(row["text"] and row["text"] in text for row in rows_of(folder))
    assert "肺癌&lt;script&gt;の" in part.html
    with (folder / "samples.csv").open() as file:
        assert [row["how"] for row in csv.DictReader(file)] == ["likeliest", "drawn"] * 2


def test_share_repeated():
    assert repeated_share([]) == repeated_share([1, 2, 3]) == 0.0
    assert repeated_share([1, 2, 3, 4, 1, 2, 3, 4]) == pytest.approx(1 / 5)
    assert repeated_share(list(range(100))) == 0.0


def test_prompts_of_a_file(tmp_path):
    assert read_prompts(None) == PROMPTS
    assert PROMPTS[0] == REPORT_PROMPT == "脳卒中と循環器病について教えてください。"
    assert read_prompts(prompts_file(tmp_path, "\ufeff一", " ", "二", "一")) == ("一", "二")
    listed = prompts_file(tmp_path, "- 一", "- |", "  二", "  三", name="p.yaml")
    assert read_prompts(listed) == ("一", "二\n三")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("p.yaml", "a: 1", "no list"),
        ("p.yaml", "- 1", "prompt 1: a prompt that is no text"),
        ("p.yaml", "- [", "cannot|no prompts"),
        ("p.txt", " \n", "0 prompts"),
        ("p.txt", "\n".join(map(str, range(1001))), "1001 prompts"),
    ],
)
def test_bad_prompts_are_told(tmp_path, name, text, said):
    with pytest.raises(UserError, match=said):
        read_prompts(prompts_file(tmp_path, text, name=name))
    (tmp_path / "latin.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(UserError):
        read_prompts(tmp_path / "latin.txt")
    with pytest.raises(UserError, match="cannot be read"):
        read_prompts(tmp_path / "nowhere.txt")
