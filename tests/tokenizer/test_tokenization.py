"""rinsho.tokenization: the class on a freshly trained folder."""

import copy
import json
import os
import pickle
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rinsho import chat, tokenization
from rinsho.errors import UserError
from rinsho.text import clean
from rinsho.tokenization import RinshoTokenizer, add_chat_tokens, fingerprint, load

TEXTS = [
    "患者は発熱と咳嗽を主訴に来院した。",
    "急性骨髄性白血病(AML)の疑い、CRP 12.5 mg/dL。\n翌日、解熱した。",
    "",
    "\n\n",
    "𠮷野家で彁を食べた",
    "a  b",
    "１２．３ｍｇ　投与",
    "<0x41><unk>\n<|end_of_text|>",
    "。。。「はい。」",
]
JAPANESE = st.text(
    st.sampled_from("患者は発熱。、\n \u3000▁<|>_[]'\"0５．,ｱﾞabc℃𠮷é\u200b\x00\u2028心筋梗塞") | st.characters(),
    max_size=60,
)
LIKE_SPECIAL = [chat.BEGIN, chat.END, *chat.CHAT_TOKENS, "<unk>", "<0x0A>", "<0xE3>"]


@pytest.fixture(scope="module")
def tokenizer(tokenizer_folder: Path) -> RinshoTokenizer:
    return load(tokenizer_folder)


@pytest.fixture(scope="module")
def chat_tokenizer(tokenizer_folder: Path) -> RinshoTokenizer:
    tokenizer = load(tokenizer_folder)
    add_chat_tokens(tokenizer)
    return tokenizer


def test_the_fixed_ids(tokenizer: RinshoTokenizer) -> None:
    assert len(tokenizer) == 900
    assert tokenizer.convert_ids_to_tokens([0, 1, 2, 3]) == ["<unk>", chat.BEGIN, chat.END, "\n"]
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 2)
    assert tokenizer.newline_id == 3


@pytest.mark.parametrize("text", TEXTS)
def test_both_ways_in_give_the_same_ids(tokenizer: RinshoTokenizer, text: str) -> None:
    fast = tokenizer.encode_text(text)
    assert fast == tokenizer(text)["input_ids"] == tokenizer.encode(text, add_special_tokens=False)
    assert tokenizer.encode_batch_text([text, "x", text]) == [fast, tokenizer.encode_text("x"), fast]
    assert tokenizer.convert_tokens_to_ids(tokenizer.tokenize(text)) == fast


@given(JAPANESE)
@settings(max_examples=150, deadline=None)
def test_any_text_comes_back_as_its_cleaned_form(tokenizer: RinshoTokenizer, text: str) -> None:
    ids = tokenizer.encode_text(text)
    assert tokenizer.decode(ids) == clean(text)
    assert ids == tokenizer(text)["input_ids"]
    assert not set(ids) & {tokenizer.unk_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id}


@pytest.mark.parametrize("marker", LIKE_SPECIAL)
@pytest.mark.parametrize("form", ["strict", "plain"])
def test_the_characters_of_a_special_token_stay_text(chat_tokenizer: RinshoTokenizer, marker: str, form: str) -> None:
    tokenizer = copy.deepcopy(chat_tokenizer)
    tokenizer.init_kwargs["segment"] = form
    forbidden = {id_ for id_ in range(len(tokenizer)) if tokenizer.convert_ids_to_tokens(id_) in LIKE_SPECIAL}
    for text in (marker, f"発熱{marker}咳嗽", f"x{marker} {marker}"):
        for ids in (
            tokenizer.encode_text(text),
            tokenizer(text, split_special_tokens=False)["input_ids"],
            tokenizer([text, text])["input_ids"][1],
        ):
            assert not forbidden & set(ids)
            assert tokenizer.decode(ids) == clean(text)


def test_line_feeds_survive_skipping_special_tokens(tokenizer: RinshoTokenizer) -> None:
    ids = [tokenizer.bos_token_id, *tokenizer.encode_text("発熱。\n咳嗽。"), tokenizer.eos_token_id]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "発熱。\n咳嗽。"


def test_a_very_long_line_neither_crashes_nor_differs(tokenizer: RinshoTokenizer) -> None:
    text = "発熱と咳嗽を認め" * 100_000
    assert tokenizer.decode(tokenizer.encode_text(text)) == text


def test_the_cache_may_overflow(tokenizer: RinshoTokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenization, "CACHED_WORDS", 5)
    assert copy.deepcopy(tokenizer).encode_text(TEXTS[1]) == tokenizer(TEXTS[1])["input_ids"]


def _encode(tokenizer: RinshoTokenizer, text: str) -> list[int]:
    return tokenizer.encode_text(text)


def test_pickle_copy_and_other_processes(tokenizer: RinshoTokenizer) -> None:
    wanted = tokenizer.encode_text(TEXTS[1])
    assert pickle.loads(pickle.dumps(tokenizer)).encode_text(TEXTS[1]) == wanted
    assert copy.deepcopy(tokenizer).encode_text(TEXTS[1]) == wanted
    with ProcessPoolExecutor(1, get_context("fork")) as pool:
        assert pool.submit(_encode, tokenizer, TEXTS[1]).result() == wanted


def test_saving_and_loading_changes_nothing(tokenizer_folder: Path, tmp_path: Path) -> None:
    load(tokenizer_folder).save_pretrained(tmp_path / "a")
    load(tmp_path / "a").save_pretrained(tmp_path / "b")
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == [
        "chat_template.jinja",
        "tokenization_rinsho.py",
        "tokenizer.json",
        "tokenizer_config.json",
        "user.dic",
    ]
    for name in names:
        original = (tokenizer_folder / name).read_bytes()
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() == original
    assert str(tmp_path) not in (tmp_path / "b" / "tokenizer_config.json").read_text()
    assert load(tmp_path / "b").encode_text(TEXTS[1]) == load(tokenizer_folder).encode_text(TEXTS[1])


def test_saving_over_its_own_folder_keeps_the_dictionary(tokenizer_folder: Path, tmp_path: Path) -> None:
    load(tokenizer_folder).save_pretrained(tmp_path)
    load(tmp_path).save_pretrained(tmp_path)
    assert (tmp_path / "user.dic").read_bytes() == (tokenizer_folder / "user.dic").read_bytes()


def test_auto_tokenizer_opens_it_once_imported_and_refuses_loudly_before(
    tokenizer_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"  # as a model folder: there transformers looks for the class by model type, too
    load(tokenizer_folder).save_pretrained(folder)
    config = {"model_type": "arcee", "architectures": ["ArceeForCausalLM"], "bos_token_id": 1, "eos_token_id": 2}
    (folder / "config.json").write_text(json.dumps(config))
    code = """
import sys
from transformers import AutoTokenizer
folder, saved = sys.argv[1:]
try:
    AutoTokenizer.from_pretrained(folder)
    sys.exit("opened without rinsho")
except ValueError as error:
    assert "custom code" in str(error), error
assert "rinsho" not in sys.modules
trusted = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
trusted.save_pretrained(saved)
import rinsho.tokenization
tokenizer = AutoTokenizer.from_pretrained(folder)
assert type(tokenizer) is type(trusted) is rinsho.tokenization.RinshoTokenizer
print(tokenizer.encode_text("発熱。"))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder), str(tmp_path / "saved")],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        env=os.environ | {"HF_HOME": str(tmp_path / "hf")},
    )
    assert done.returncode == 0, done.stderr
    ids = load(tokenizer_folder).encode_text("発熱。")
    assert done.stdout.endswith(f"{ids}\n")
    for name in ("tokenizer.json", "tokenizer_config.json", "tokenization_rinsho.py"):
        assert (tmp_path / "saved" / name).read_bytes() == (tokenizer_folder / name).read_bytes()


def test_importing_the_module_and_encoding_loads_no_torch(tokenizer_folder: Path) -> None:
    code = """
import sys
import rinsho.tokenization as t
t.load(sys.argv[1]).encode_text('発熱')
sys.exit('torch' in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code, str(tokenizer_folder)], check=False).returncode == 0


def test_padding_truncation_and_batches(tokenizer: RinshoTokenizer) -> None:
    rows = tokenizer(["発熱。", "発熱と咳嗽を認めた。"], padding=True, truncation=True, max_length=4)
    assert [len(row) for row in rows["input_ids"]] == [4, 4]
    assert rows["input_ids"][0][-1] == tokenizer.pad_token_id
    assert rows["attention_mask"][0][-1] == 0


def test_offsets_point_into_the_raw_text(tokenizer: RinshoTokenizer) -> None:
    text = "発熱　３８．５ あり。\n咳嗽"
    ids, ranges = tokenizer.encode_aligned(text)
    assert ids == tokenizer.encode_text(text)
    assert all(start < end for start, end in ranges)
    assert [clean(text[start:end]) or " " for start, end in ranges][-1] == "咳嗽"
    padded = tokenizer([text, "咳嗽"], padding=True, return_offsets_mapping=True)["offset_mapping"]
    assert padded[0] == ranges
    assert padded[1][0] == (0, 2)
    assert padded[1][-1] == (0, 0)


def test_chat_tokens_stand_at_the_end_and_survive_saving(tokenizer_folder: Path, tmp_path: Path) -> None:
    tokenizer = load(tokenizer_folder)
    assert (add_chat_tokens(tokenizer), add_chat_tokens(tokenizer)) == (3, 0)
    assert tokenizer.convert_tokens_to_ids(list(chat.CHAT_TOKENS)) == [900, 901, 902]
    tokenizer.save_pretrained(tmp_path)
    again = load(tmp_path)
    assert (len(again), again.vocab_size) == (903, 900)
    assert again.decode([901, *again.encode_text("熱")], skip_special_tokens=True) == "熱"
    assert add_chat_tokens(again) == 0


ROWS = [
    {"role": "system", "content": "医師として答える。"},
    {"role": "user", "content": "発熱<|assistant|>とは?"},
    {"role": "assistant", "content": "体温の上昇。"},
]


def test_the_chat_template_goes_by_ids(chat_tokenizer: RinshoTokenizer) -> None:
    ids, mask = chat.render(chat.messages_from(ROWS), chat_tokenizer)
    done = chat_tokenizer.apply_chat_template(ROWS, return_assistant_tokens_mask=True)
    assert (done["input_ids"], done["assistant_masks"]) == (ids, mask)
    assert done["attention_mask"] == [1] * len(ids)
    assert ids.count(chat_tokenizer.convert_tokens_to_ids(chat.ASSISTANT)) == 1
    assert chat_tokenizer.apply_chat_template(ROWS, return_dict=False) == ids
    assert chat_tokenizer.decode(ids) == chat_tokenizer.apply_chat_template(ROWS, tokenize=False)


def test_chat_batches_pad_and_open_ends(chat_tokenizer: RinshoTokenizer) -> None:
    short, long = ROWS[1:2], ROWS
    rows = chat_tokenizer.apply_chat_template([short, long], padding=True, return_assistant_tokens_mask=True)
    assert len({len(row) for key in rows for row in rows[key]}) == 1
    open_end = chat_tokenizer.apply_chat_template(ROWS, continue_final_message=True, return_dict=False)
    assert [*open_end, chat_tokenizer.eos_token_id] == chat.render(chat.messages_from(ROWS), chat_tokenizer)[0]
    prompt = chat_tokenizer.apply_chat_template(short, add_generation_prompt=True, return_dict=False)
    assert prompt[-1] == chat_tokenizer.convert_tokens_to_ids(chat.ASSISTANT)
    with pytest.raises(ValueError, match="one chat template"):
        chat_tokenizer.apply_chat_template(ROWS, chat_template="{{ messages }}")


def test_a_base_tokenizer_has_no_chat(tokenizer: RinshoTokenizer) -> None:
    with pytest.raises(UserError, match="no token <\\|system\\|>"):
        tokenizer.apply_chat_template(ROWS)


def test_fingerprint(tokenizer_folder: Path, tmp_path: Path) -> None:
    tokenizer = load(tokenizer_folder)
    before = fingerprint(tokenizer_folder)
    tokenizer(["a", "発熱"], padding=True, truncation=True, max_length=3)
    add_chat_tokens(tokenizer)
    tokenizer.save_pretrained(tmp_path)
    assert fingerprint(tokenizer) == fingerprint(tmp_path) == before
    tokenizer.init_kwargs["segment"] = "plain"
    assert fingerprint(tokenizer) != before


def test_a_folder_without_its_dictionary_is_refused(tokenizer_folder: Path, tmp_path: Path) -> None:
    load(tokenizer_folder).save_pretrained(tmp_path)
    (tmp_path / "user.dic").unlink()
    with pytest.raises(UserError, match="user dictionary"):
        load(tmp_path).encode_text("発熱")


def test_a_folder_of_another_dictionary_version_is_refused(tokenizer_folder: Path, tmp_path: Path) -> None:
    load(tokenizer_folder).save_pretrained(tmp_path)
    config = tmp_path / "tokenizer_config.json"
    config.write_text(config.read_text().replace("ipadic-", "unidic-"))
    with pytest.raises(UserError, match="trained with unidic"):
        load(tmp_path).encode_text("発熱")


def test_folders_without_a_tokenizer_are_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError, match="no rinsho tokenizer"):
            load(folder)


@pytest.mark.parametrize(
    "imports",
    [
        "import rinsho.tokenization; from transformers import ArceeForCausalLM, AutoTokenizer",
        "from transformers import AutoModelForCausalLM, AutoTokenizer; import rinsho.tokenization",
        "import rinsho.tokenization; from transformers import AutoTokenizer",
    ],
)
def test_auto_tokenizer_finds_the_class_in_any_order_of_imports(tokenizer_folder, imports):
    code = f"{imports}; print(type(AutoTokenizer.from_pretrained({str(tokenizer_folder)!r})).__name__)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert result.stdout.strip() == "RinshoTokenizer", result.stderr
