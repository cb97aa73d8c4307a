"""transformers in slots: whatever was read when, the logits are those of the text alone."""

import random
from pathlib import Path

import numpy as np
import pytest

from generate_many.toy_gguf import our_folder
from rinsho.errors import UserError
from rinsho.generate.batcher import Batcher, Part
from rinsho.generate.jobs import choice_job, text_job
from toy_models import toy_folder, toy_model

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from rinsho.generate import slots as module  # noqa: E402
from rinsho.generate.slots import TorchDecoder, open_torch  # noqa: E402

WORDS = range(259, 299)
PROMPT = [1, 260, 270]
SMALL = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, vocab_size=300)  # noqa: C408


def model_of(kind):
    from transformers import AutoModelForCausalLM, GemmaConfig, GPT2Config, Qwen2Config

    torch.manual_seed(2)
    if kind == "llama":
        return toy_model(300)
    if kind == "eager":
        return AutoModelForCausalLM.from_config(toy_model(300).config, attn_implementation="eager").eval()
    config = {
        "gpt2": GPT2Config(vocab_size=300, n_embd=32, n_layer=2, n_head=4, n_positions=256, bos_token_id=1),
        "qwen": Qwen2Config(**SMALL, num_key_value_heads=2, max_position_embeddings=256),
        "gemma": GemmaConfig(**SMALL, num_key_value_heads=1, head_dim=16, max_position_embeddings=256),
    }[kind]
    return AutoModelForCausalLM.from_config(config).eval()


def alone(model, ids):
    with torch.inference_mode():
        return model(torch.tensor([ids])).logits[0].float().numpy()


def a_random_day(decoder, model, steps, seed=1):
    """Parts of all kinds in all orders; every logit is compared with the model on the slot's text alone."""
    draw = random.Random(seed)
    texts = [[] for _ in range(decoder.slots)]
    worst, compared = 0.0, 0
    for _ in range(steps):
        parts, ends = [], []
        for slot in draw.sample(range(decoder.slots), draw.randrange(1, decoder.slots + 1)):
            if draw.random() < 0.15:  # goes back, without a word or with a new part
                back = draw.randrange(len(texts[slot]) + 1)
                texts[slot] = texts[slot][:back]
                if draw.random() < 0.5:
                    decoder.forget(slot, back)
            room = decoder.window - len(texts[slot])
            count = min(room, draw.choice([1, 1, 1, 1, 2, 9]))
            if count:
                wanted = draw.choice(["none", "last", "last", "every"])
                ids = [draw.choice(WORDS) for _ in range(count)]
                parts.append(Part(slot, len(texts[slot]), ids, wanted))
                texts[slot] += ids
                ends.append(len(texts[slot]))
        for part, got in zip(parts, decoder.feed(parts), strict=True):
            if part.wanted == "none":
                assert got is None
                continue
            right = alone(model, texts[part.slot])[part.start if part.wanted == "every" else -1 :]
            assert got.shape == right.shape and got.dtype == np.float32
            worst, compared = max(worst, float(np.abs(got - right).max())), compared + len(got)
    assert compared > steps
    return worst


@pytest.mark.parametrize("kind", ["llama", "eager", "gpt2", "qwen", "gemma"])
def test_logits_are_those_of_the_text_alone(kind):
    model = model_of(kind)
    decoder = TorchDecoder(model, slots=5, window=40)
    assert decoder.vocab_size == 300 and decoder.window == 40
    assert a_random_day(decoder, model, 120) < 1e-4


def test_our_own_model_and_its_window(tmp_path):
    decoder = open_torch(our_folder(tmp_path / "ours"), slots=2, form="float32")
    assert decoder.window == decoder.model.config.max_position_embeddings and decoder.form == "float32"
    assert a_random_day(decoder, decoder.model, 40) < 1e-4
    full = [[WORDS[place % 40] for place in range(decoder.window)] for _ in range(2)]
    decoder.feed([Part(slot, 0, ids[:-1], "none") for slot, ids in enumerate(full)])
    got = decoder.feed([Part(slot, decoder.window - 1, ids[-1:], "last") for slot, ids in enumerate(full)])
    assert np.abs(got[1][0] - alone(decoder.model, full[1])[-1]).max() < 1e-4
    with pytest.raises(AssertionError, match="room"):
        decoder.feed([Part(0, decoder.window, [5], "last")])
    decoder.forget(1, 3)
    with pytest.raises(AssertionError, match="behind"):
        decoder.feed([Part(1, 4, [5], "last")])
    with pytest.raises(UserError, match="a window of 100000 tokens"):
        TorchDecoder(decoder.model, 1, 100_000)


def test_many_answers_at_once_are_the_answers_of_the_engine(tmp_path):
    from rinsho.generate.engine import Generator

    folder = toy_folder(tmp_path / "toy")
    engine, decoder = Generator(folder), open_torch(folder, slots=3, form="float32")
    draw = random.Random(4)
    prompts = [[1] + [draw.choice(WORDS) for _ in range(draw.randrange(1, 60))] for _ in range(9)]
    answers = Batcher(decoder).run([text_job(prompt, 24, [engine.end_id]) for prompt in prompts])
    assert answers == engine.generate(prompts, 24) and len({*map(tuple, answers)}) > 3
    options = [[[259, 260], [261], [262, 263, 264]] for _ in prompts]
    sums = Batcher(decoder).run([choice_job(*pair) for pair in zip(prompts, options, strict=True)])
    np.testing.assert_allclose(sums, engine.choose(prompts, options), atol=1e-3)


def test_running_answers_lie_in_the_first_rows_and_move_seldom():
    decoder = TorchDecoder(toy_model(300), slots=6, window=32)
    moved = []
    for layer in decoder.layers:
        swap = layer.swap
        layer.swap = lambda *rows, swap=swap: (moved.append(rows), swap(*rows))
    for position in range(10):
        decoder.feed([Part(slot, position, [260 + slot], "last") for slot in (1, 5)])
    assert sorted(decoder._row_of[slot] for slot in (1, 5)) == [0, 1]
    assert len(moved) == len(decoder.layers)  # one row each, once


def test_models_that_keep_more_than_keys_and_values_are_refused():
    from transformers import AutoModelForCausalLM, MambaConfig, MistralConfig

    sliding = AutoModelForCausalLM.from_config(
        MistralConfig(**SMALL, num_key_value_heads=2, sliding_window=24, max_position_embeddings=256)
    ).eval()
    with pytest.raises(UserError, match="--window 24 is short enough"):
        TorchDecoder(sliding, 2)
    assert a_random_day(TorchDecoder(sliding, 3, 24), sliding, 60) < 1e-4
    mamba = AutoModelForCausalLM.from_config(MambaConfig(vocab_size=300, hidden_size=32, num_hidden_layers=1))
    with pytest.raises(UserError, match="something else of a text than keys and values"):
        TorchDecoder(mamba, 2, 16)
    stretched = toy_model(300)
    stretched.config.rope_parameters = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
    with pytest.raises(UserError, match="full attention"):
        TorchDecoder(stretched, 2, 16)


def test_every_form_answers_and_says_what_it_is(tmp_path):
    pytest.importorskip("bitsandbytes")
    folder = toy_folder(tmp_path / "toy")
    right = alone(open_torch(folder, form="float32").model, PROMPT)[-1]
    far = {}
    for form in ("float32", "bfloat16", "int8", "int4"):
        decoder = open_torch(folder, slots=2, window=16, form=form)
        assert decoder.form == form
        (got,) = decoder.feed([Part(1, 0, PROMPT, "last")])
        assert np.abs(got - alone(decoder.model, PROMPT)[-1:]).max() < 0.02 * np.abs(right).max()
        far[form] = float(np.linalg.norm(got - right) / np.linalg.norm(right))
        decoder.close()
    assert far["float32"] < 1e-5 < 1e-3 < far["bfloat16"] < 0.1 and far["bfloat16"] < far["int8"] < far["int4"] < 1
    with pytest.raises(UserError, match=r"unknown form 'int5' \(did you mean 'int8'"):
        open_torch(folder, form="int5")


def test_an_adapter_answers_on_its_base_and_prompt_learning_is_refused(tmp_path):
    peft = pytest.importorskip("peft")
    from rinsho import adapters, bases

    base, folder = toy_folder(tmp_path / "base"), tmp_path / "adapter"
    model = bases.quantized_base(base)
    torch.manual_seed(1)
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear", init_lora_weights=False)
    model = adapters.attach(model, config)
    adapters.save_adapter(model.eval(), None, folder, base, {})
    decoder = open_torch(folder, slots=2)
    assert decoder.form == "float32"  # as in training
    assert a_random_day(decoder, model, 20) < 1e-4
    assert open_torch(folder, form="bfloat16").form == "bfloat16"
    with bases.quiet():
        prompted = peft.get_peft_model(
            toy_model(300), peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
        )
    with pytest.raises(UserError, match="PROMPT_TUNING"):
        TorchDecoder(prompted, 2)


def test_slots_take_memory_only_where_something_is_written():
    def resident():
        status = Path("/proc/self/status").read_text()
        return int(status.split("RssAnon:")[1].split()[0]) / 1024

    if not Path("/proc/self/status").exists():
        pytest.skip("needs Linux")
    before = resident()
    big = module._zeros((16, 1024, 1024, 64), torch.ones(1, dtype=torch.bfloat16))  # 2 GiB
    assert big.dtype == torch.bfloat16 and float(big[15, 1000, 1000, 60]) == 0.0
    big[3, 4, 5] = 2.5
    assert float(big[3, 4].float().sum()) == 2.5 * 64 and resident() - before < 100
