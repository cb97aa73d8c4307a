"""A tiny base model of ours, tiny task data, and a recipe that tunes in a second."""

from __future__ import annotations

import csv
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from rinsho.document import Document, write_documents
from rinsho.finetune import Recipe
from rinsho.tasks import prompts

SYMPTOMS = ["発熱", "咳嗽", "頭痛", "下痢", "腹痛", "呼吸困難", "嘔気", "発疹", "めまい", "動悸"]
ORGANS = ["食道", "胃", "大腸", "肝", "膵", "腎", "膀胱", "肺", "脳", "皮膚"]
KINDS = ["炎", "癌", "出血", "潰瘍", "膿瘍", "結石", "梗塞", "肥大", "狭窄", "損傷"]
DRUGS = ["アスピリン", "ワルファリン", "メトホルミン", "プレドニゾロン", "フロセミド"]


def _sentence(draw: random.Random) -> str:
    first, second = draw.sample(SYMPTOMS, 2)
    disease = draw.choice(ORGANS) + draw.choice(KINDS)
    return draw.choice((
        f"患者は{first}と{second}を認め、{draw.choice(DRUGS)}{draw.randint(1, 90)}mgを投与した。",
        f"最初の問い合わせは{first}だった。{disease}の既往がある。最後の行では{second}はありますか？",
        f"所見を表す表現は[{first}]、投稿者に{disease}があるか。第{draw.randint(1, 9)}病日に続けた。",
    ))  # fmt: skip


def _write(path: Path, rows: list[list[str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A JMED-LLM folder: 60 posts with unequal answers, 30 nursing records."""
    folder, draw = tmp_path_factory.mktemp("tasks") / "jmed_llm", random.Random(4)
    posts = []
    for number in range(60):
        said, asked = draw.sample(SYMPTOMS, 2)
        yes = number % 4 == 0
        question = f"投稿者に{said if yes else asked}はありますか？\n「{number}日前から{said}がある。」"
        posts.append([asked, question, "ある", "ない", "A" if yes else "B"])
    records = []
    for number in range(30):
        first, second = draw.sample(SYMPTOMS, 2)
        question = f"所見を表す表現は？\n「第{number}病日、{first}と{second}あり。{draw.choice(DRUGS)}を続けた。」"
        records.append(["d", question, str([first, second])])
    choice, entities = ["tag", "question", "optionA", "optionB", "answer"], ["tag", "question", "answer"]
    _write(folder / "datasets/smdis.csv", [choice, *posts[:6]])
    _write(folder / "datasets/all/SMDIS.csv", [choice, *posts])
    _write(folder / "datasets/nrner.csv", [entities, *records[:4]])
    _write(folder / "datasets/all/NRNER.csv", [entities, *records])
    return folder.parent


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random base model of ours with a tokenizer trained on invented sentences."""
    from rinsho import tokenization, tokenizer
    from rinsho.model import ModelSettings, build
    from rinsho.model_folder import save_folded

    root, draw = tmp_path_factory.mktemp("base"), random.Random(3)
    texts = ["".join(_sentence(draw) for _ in range(4)) for _ in range(200)]
    texts += [prompts.CHOICE.system + prompts.ENTITIES.system] * 20  # asked with every question: few tokens, please
    (root / "corpus").mkdir()
    with (root / "corpus/texts.jsonl.zst").open("wb") as file:
        write_documents(file, [Document(text, str(number)) for number, text in enumerate(texts)])
    tokenizer.run(tokenizer.Recipe(vocab_size=480), [root / "corpus"], root / "tokenizer")
    ours = tokenization.load(root / "tokenizer")
    settings = ModelSettings(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        max_position_embeddings=256,
    )  # fmt: skip
    ids = {"bos_token_id": ours.bos_token_id, "eos_token_id": ours.eos_token_id, "pad_token_id": ours.eos_token_id}
    save_folded(build(settings, len(ours), 1, **ids), ours, root / "model", {"stage": "pretrain", "steps": 0})
    return root / "model"


@pytest.fixture
def recipe() -> Recipe:
    """Six steps in float32 on one thread."""
    return Recipe(
        max_tokens=6 * 512, copy_tokens=512, sequence_length=128, batch_tokens=512, dtype="fp32", threads=1,
        save_every_steps=2, log_every_steps=1, warmup_steps=2, residual_dropout=0.1, neftune_alpha=5.0,
    )  # fmt: skip


@pytest.fixture
def interrupted_at_5(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`run` that is interrupted, as by Ctrl-C, when the sixth step is about to begin; later runs are not."""
    from rinsho.finetune import run
    from rinsho.finetune.loop import Trainer

    step = Trainer.step

    def stops(self: Trainer) -> None:
        if self.at.step == 5:
            raise KeyboardInterrupt
        step(self)

    def begin(recipe: Recipe, inputs: list[Path], out: Path) -> None:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Trainer, "step", stops)
            run(recipe, inputs, out)

    return begin
