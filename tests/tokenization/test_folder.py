"""Folders: saving, loading, AutoTokenizer, fingerprints, and tokenizers that travel to threads and processes."""

import copy
import json
import os
import pickle
import shutil
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from transformers import AddedToken

from rinsho.errors import UserError
from rinsho.text import clean
from rinsho.tokenization import RinshoTokenizer, add_chat_tokens, fingerprint, load, wrap
from tokenization.samples import SENTENCES, TEXTS, vocabulary

COMMON = ["chat_template.jinja", "tokenization_rinsho.py", "tokenizer.json", "tokenizer_config.json"]


def test_pickles_and_copies(tokenizer: RinshoTokenizer) -> None:
    for text in TEXTS:
        wanted = tokenizer.encode_text(text)
        for other in (pickle.loads(pickle.dumps(tokenizer)), copy.deepcopy(tokenizer), copy.copy(tokenizer)):
            assert other.encode_text(text) == wanted == other(text)["input_ids"]


@pytest.mark.parametrize("how", ["fork", "spawn"])
def test_other_processes(strict: RinshoTokenizer, plain: RinshoTokenizer, how: str) -> None:
    with ProcessPoolExecutor(1, get_context(how)) as pool:
        for tokenizer in (strict, plain):
            assert pool.submit(RinshoTokenizer.encode_text, tokenizer, TEXTS[1]).result() == tokenizer.encode_text(
                TEXTS[1]
            )


@pytest.mark.slow
def test_threads_share_one_tokenizer(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rinsho.tokenization import words

    texts = [f"{one}{number}{two}\n" for number, one in enumerate(TEXTS) for two in TEXTS] * 4
    wanted = [load(folder).encode_text(text) for text in texts]
    monkeypatch.setattr(words, "CACHED_WORDS", 50)  # so that threads empty the cache of each other
    shared = load(folder)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(shared.encode_text, texts)) == wanted
        calls = list(pool.map(lambda text: shared(text, truncation=True, max_length=7)["input_ids"], texts[:100]))
        whole = list(pool.map(lambda text: shared.encode_aligned(text)[0], texts[:100]))
    assert calls == [ids[:7] for ids in wanted[:100]]
    assert whole == wanted[:100]


def test_datasets_map_and_its_cache(folder: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    from datasets.fingerprint import Hasher

    tokenizer = load(folder)
    before = Hasher.hash(tokenizer)
    rows = datasets.Dataset.from_dict(
        {"text": TEXTS},
    ).map(lambda row: tokenizer(row["text"]), batched=True)
    assert rows["input_ids"][:] == [tokenizer.encode_text(text) for text in TEXTS]
    assert Hasher.hash(tokenizer) == before  # a used cache is no other tokenizer: the mapped rows are found again


def test_saving_and_loading_changes_nothing(folder: Path, tmp_path: Path) -> None:
    load(folder).save_pretrained(tmp_path / "a")
    used = load(tmp_path / "a")
    used(SENTENCES, padding=True, truncation=True, max_length=3)
    used.save_pretrained(tmp_path / "b")
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == COMMON + (["user.dic"] if used.segment_form == "strict" else [])
    for name in names:
        original = (folder / name).read_bytes()
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() == original
    assert str(tmp_path) not in (tmp_path / "b" / "tokenizer_config.json").read_text()
    shutil.copytree(tmp_path / "b", tmp_path / "コピー先 folder")
    shutil.rmtree(tmp_path / "b")
    copied = load(tmp_path / "コピー先 folder")
    for text in TEXTS:
        assert copied.encode_text(text) == load(folder).encode_text(text)
    assert fingerprint(copied) == fingerprint(folder)


def test_saving_over_its_own_folder_keeps_the_dictionary(strict_folder: Path, tmp_path: Path) -> None:
    load(strict_folder).save_pretrained(tmp_path)
    load(tmp_path).save_pretrained(tmp_path)
    assert (tmp_path / "user.dic").read_bytes() == (strict_folder / "user.dic").read_bytes()


def test_auto_tokenizer_opens_it_once_imported_and_refuses_loudly_before(
    strict_folder: Path, plain_folder: Path, tmp_path: Path
) -> None:
    code = """
import sys
from transformers import AutoTokenizer
folders, saved = sys.argv[1:3], sys.argv[3]
for folder in folders:
    try:
        AutoTokenizer.from_pretrained(folder)
        sys.exit("opened without rinsho")
    except ValueError as error:
        assert "custom code" in str(error), error
assert "rinsho" not in sys.modules
for number, folder in enumerate(folders):
    trusted = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    trusted.save_pretrained(f"{saved}{number}")
import rinsho.tokenization
for folder in folders:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert type(tokenizer) is type(trusted) is rinsho.tokenization.RinshoTokenizer
    print(tokenizer.encode_text("発熱。"))
"""
    folders = []
    for source in (strict_folder, plain_folder):
        folder = tmp_path / f"model{len(folders)}"  # a model folder: there transformers looks by model type, too
        load(source).save_pretrained(folder)
        config = {"model_type": "arcee", "architectures": ["ArceeForCausalLM"], "bos_token_id": 1, "eos_token_id": 2}
        (folder / "config.json").write_text(json.dumps(config))
        folders.append(str(folder))
    done = subprocess.run(
        [sys.executable, "-c", code, *folders, str(tmp_path / "saved")],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        env=os.environ | {"HF_HOME": str(tmp_path / "hf"), "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr
    wanted = [load(source).encode_text("発熱。") for source in (strict_folder, plain_folder)]
    assert done.stdout.endswith("".join(f"{ids}\n" for ids in wanted))
    for number, source in enumerate((strict_folder, plain_folder)):
        for name in COMMON:
            assert (tmp_path / f"saved{number}" / name).read_bytes() == (source / name).read_bytes()


@pytest.mark.parametrize(
    "imports",
    [
        pytest.param(
            "import rinsho.tokenization; from transformers import ArceeForCausalLM, AutoTokenizer",
            marks=pytest.mark.slow,
        ),
        "from transformers import AutoModelForCausalLM, AutoTokenizer; import rinsho.tokenization",
    ],
)
def test_auto_tokenizer_finds_the_class_in_any_order_of_imports(strict_folder: Path, imports: str) -> None:
    code = f"{imports}; print(type(AutoTokenizer.from_pretrained({str(strict_folder)!r})).__name__)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert result.stdout.strip() == "RinshoTokenizer", result.stderr


def test_importing_and_encoding_loads_no_torch(strict_folder: Path, plain_folder: Path) -> None:
    code = """
import sys
import rinsho.tokenization as t
for folder in sys.argv[1:]:
    tokenizer = t.load(folder)
    tokenizer.encode_text('発熱')
    tokenizer(['発熱', '咳'], padding=True, return_offsets_mapping=True, return_tensors='np')
sys.exit('torch' in sys.modules)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code, str(strict_folder), str(plain_folder)]
    assert subprocess.run(command, check=False, env=environment).returncode == 0


def test_fingerprints(strict_folder: Path, plain_folder: Path, tmp_path: Path) -> None:
    tokenizer = load(strict_folder)
    before = fingerprint(strict_folder)
    tokenizer(["a", "発熱"], padding=True, truncation=True, max_length=3)
    add_chat_tokens(tokenizer)
    tokenizer.save_pretrained(tmp_path)
    assert fingerprint(tokenizer) == fingerprint(tmp_path) == before
    others = [
        load(plain_folder),
        load(strict_folder, clean=False),
        wrap(vocabulary(), segment="strict"),
        wrap(vocabulary(split_digits=False), segment="plain", split_digits=False),
        wrap(vocabulary(byte_fallback=False), segment="plain", byte_fallback=False),
    ]
    assert len({before, *map(fingerprint, others)}) == len(others) + 1


def test_cleaning_is_a_saved_property(folder: Path, tmp_path: Path) -> None:
    raw = "ＣＲＰ　発熱"
    trusting = load(folder, clean=False)
    trusting.save_pretrained(tmp_path)
    again = load(tmp_path)
    assert (load(folder).cleans, again.cleans) == (True, False)
    assert fingerprint(again) == fingerprint(trusting) != fingerprint(folder)
    assert again.decode(again.encode_text(raw)) == raw
    assert again.encode_text(raw, clean=True) == load(folder).encode_text(raw) == again.encode_text(clean(raw))
    assert again(raw, clean=True)["input_ids"] == load(tmp_path, clean=True).encode_text(raw)


def test_added_words_are_refused_because_no_text_would_become_one(tokenizer: RinshoTokenizer) -> None:
    other = copy.deepcopy(tokenizer)
    with pytest.raises(ValueError, match="word list"):
        other.add_tokens(["新薬"])
    assert len(other) == len(tokenizer)
    assert other.add_tokens([AddedToken("<|mark|>", special=True)]) == 1
    assert other.encode_text("<|mark|>") == tokenizer.encode_text("<|mark|>")


def test_a_folder_without_its_dictionary_is_refused(strict_folder: Path, tmp_path: Path) -> None:
    load(strict_folder).save_pretrained(tmp_path)
    (tmp_path / "user.dic").unlink()
    for use in (lambda t: t.encode_text("発熱"), lambda t: t("発熱"), lambda t: t.encode_aligned("発熱")):
        with pytest.raises(UserError, match="user dictionary"):
            use(load(tmp_path))


def test_a_folder_of_another_dictionary_version_is_refused(strict_folder: Path, tmp_path: Path) -> None:
    load(strict_folder).save_pretrained(tmp_path)
    config = tmp_path / "tokenizer_config.json"
    config.write_text(config.read_text().replace("ipadic-", "unidic-"))
    with pytest.raises(UserError, match="trained with unidic"):
        load(tmp_path).encode_text("発熱")


def test_the_plain_form_needs_no_mecab(plain_folder: Path) -> None:
    code = """
import sys
sys.modules['fugashi'] = sys.modules['ipadic'] = None
from rinsho.tokenization import load
print(load(sys.argv[1]).encode_text('発熱。'))
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code, str(plain_folder)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.stdout == f"{load(plain_folder).encode_text('発熱。')}\n", done.stderr


def test_folders_without_a_tokenizer_are_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError, match="no rinsho tokenizer"):
            load(folder)


def test_files_of_two_tokenizers_in_one_folder_are_refused(
    strict_folder: Path, plain_folder: Path, tmp_path: Path
) -> None:
    mixed = tmp_path / "mixed"
    shutil.copytree(strict_folder, mixed)
    shutil.copy(plain_folder / "tokenizer.json", mixed)
    with pytest.raises(UserError, match="not of the same tokenizer"):
        load(mixed)
    other = wrap([*vocabulary()[:-1], ("彁", -9.0)], segment="strict")
    other.save_pretrained(tmp_path / "other")
    shutil.copy(tmp_path / "other" / "tokenizer.json", mixed)
    with pytest.raises(UserError, match="not of the same tokenizer"):
        load(mixed)
    (mixed / "tokenizer.json").write_text("{half a fi")
    with pytest.raises(UserError, match="no rinsho tokenizer"):
        load(mixed)
