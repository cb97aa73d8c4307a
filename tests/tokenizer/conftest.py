"""A tiny tokenizer, trained once a session through the room's own door."""

import random
from pathlib import Path

import pytest

from rinsho.document import Document, write_documents
from rinsho.tokenizer import Recipe, run


def _words(text: str) -> list[str]:
    return text.split()


DISEASES = _words("""
急性骨髄性白血病 間質性肺炎 非小細胞肺癌 心筋梗塞 脳梗塞 糖尿病 肺結核 気管支喘息 慢性腎臓病
胃潰瘍 大腸癌 膵炎 肝硬変 胆石症 尿路感染症 関節リウマチ 甲状腺機能低下症 高血圧症 うつ病
帯状疱疹 白内障 中耳炎 骨粗鬆症 鉄欠乏性貧血 悪性リンパ腫 多発性硬化症 パーキンソン病 心房細動
""")
ORGANS = _words("""
食道 胃 大腸 肝 膵 腎 膀胱 子宮 肺 脳 甲状腺 皮膚 脊髄 副鼻腔 網膜 血管
""")
KINDS = _words("""
炎 癌 出血 潰瘍 膿瘍 結石 梗塞 肥大 狭窄 損傷 転移 浮腫 線維症 機能不全 良性腫瘍
""")
COMPOUNDS = [organ + kind for organ in ORGANS for kind in KINDS]
FINDINGS = _words("""
発熱 咳嗽 呼吸困難 胸痛 頭痛 下痢 浮腫 動悸 全身倦怠感 食欲不振 嘔気 発疹 腹痛 黄疸 血尿
めまい しびれ 意識障害 体重減少 リンパ節腫脹 喀血 便秘 不眠 筋力低下 痙攣 関節痛
""")
DRUGS = _words("""
アスピリン ワルファリン メトホルミン プレドニゾロン アムロジピン フロセミド セフトリアキソン
""")
PATTERNS = [
    "{a}歳の患者が{x}を主訴に来院した。",
    "{x}と{y}を認め、{d}と診断した。",
    "{d}の治療として{m}{a}mgを投与したところ、{x}は改善した。",
    "CTで{d}が疑われたが、{x}は認めなかった。\n翌日、{y}が出現した。",
    "Patient had {d} (CRP {a}.{b} mg/dL)、{x}あり。",
    "既往歴に{d}がある。家族歴に特記すべきことはない。",
    "{m}を開始し、{a}日後に退院した。外来で経過観察中である。",
    "入院時の体温は3{b}.{b}℃、血圧は1{b}{b}/{a} mmHg、{x}はなかった。",
    "手術の適応はなく、{m}による保存的な治療を続けた。",
]


def write_corpus(folder: Path, documents: int = 600, shards: int = 3, seed: int = 1) -> Path:
    """Invented documents with sources, in zstd shards."""
    draw = random.Random(seed)
    rows = []
    for number in range(documents):
        sentences = [
            draw.choice(PATTERNS).format(
                a=draw.randint(1, 99),
                b=draw.randint(0, 9),
                d=draw.choice(draw.choice((DISEASES, COMPOUNDS))),
                m=draw.choice(DRUGS),
                x=draw.choice(FINDINGS),
                y=draw.choice(FINDINGS),
            )
            for _ in range(draw.randint(3, 9))
        ]
        rows.append(Document("".join(sentences), f"doc{number}", {"source": "wiki" if number % 2 else "case"}))
    folder.mkdir(parents=True)
    for shard in range(shards):
        with (folder / f"part-{shard}.jsonl.zst").open("wb") as file:
            write_documents(file, rows[shard::shards])
    return folder


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus folder of three shards."""
    return write_corpus(tmp_path_factory.mktemp("tokenizer") / "corpus")


@pytest.fixture(scope="session")
def word_list(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A word list of diseases."""
    path = tmp_path_factory.mktemp("lexicon") / "terms.csv"
    rows = "".join(f"{name},,disease\n" for name in DISEASES + COMPOUNDS)
    path.write_text("surface,reading,kind\n" + rows, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    """Settings that fit the tiny corpus."""
    return Recipe(vocab_size=900, heldout_fraction=0.05)


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory, corpus: Path, word_list: Path, recipe: Recipe) -> Path:
    """A finished run folder of the tokenizer room."""
    out = tmp_path_factory.mktemp("run") / "tokenizer"
    run(recipe, [corpus, word_list], out)
    return out
