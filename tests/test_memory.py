"""What a model needs is what it takes; what does not fit is refused before it is loaded, with what does."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from generate_many.toy_gguf import export, our_folder
from rinsho import machine, memory
from rinsho.errors import UserError
from rinsho.memory import MIB, Need, needs, settle, table

torch = pytest.importorskip("torch")


def model_of(kind):
    from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

    torch.manual_seed(1)
    config = {
        "llama": LlamaConfig(
            vocab_size=3000, hidden_size=192, intermediate_size=512, num_hidden_layers=3, num_attention_heads=6,
            num_key_value_heads=2, max_position_embeddings=512,
        ),
        "tied": LlamaConfig(
            vocab_size=3000, hidden_size=192, intermediate_size=512, num_hidden_layers=2, num_attention_heads=6,
            head_dim=64, max_position_embeddings=512, tie_word_embeddings=True,
        ),
        "gpt2": GPT2Config(vocab_size=3000, n_embd=192, n_layer=2, n_head=4, n_positions=512),
    }[kind]  # fmt: skip
    return AutoModelForCausalLM.from_config(config).eval()


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    folder = tmp_path_factory.mktemp("memory") / "llama"
    model_of("llama").save_pretrained(folder)
    return folder


def by_form(*arguments, **options):
    return {need.form: need for need in needs(*arguments, **options)}


def bytes_of(model):
    """Bytes of everything a model holds, tied matrices once, what bitsandbytes keeps beside its weights included."""
    tensors = [*model.parameters(), *model.buffers()]
    for module in model.modules():
        state = getattr(module, "state", None)
        tensors += [value for value in vars(state).values() if isinstance(value, torch.Tensor)] if state else []
        quant = getattr(getattr(module, "weight", None), "quant_state", None)
        tensors += [quant.absmax, quant.state2.absmax] if quant is not None else []
    found = {tensor.data_ptr(): tensor.nbytes for tensor in tensors if tensor.numel()}
    return sum(found.values())


@pytest.mark.parametrize("kind", ["llama", "tied", "gpt2"])
def test_weights_and_cache_are_what_is_there_when_it_is_open(kind, tmp_path):
    pytest.importorskip("bitsandbytes")
    from rinsho.generate.slots import open_torch

    folder = tmp_path / kind
    model_of(kind).save_pretrained(folder)
    for form in memory.TORCH_FORMS:
        decoder = open_torch(folder, slots=3, window=200, form=form)
        need = by_form(folder, slots=3, window=200)[form]
        assert need.weights_bytes == pytest.approx(bytes_of(decoder.model), rel=0.02)
        kept = sum(buffer.nbytes for layer in decoder.layers for buffer in layer.buffers)
        assert need.cache_bytes == kept and need.ready and need.runtime == "transformers"
        assert need.total_bytes == need.weights_bytes + need.cache_bytes + need.other_bytes


def test_exports_are_as_large_as_estimated(tmp_path):
    """Of a model without gate and of one with; the tokenizer inside is left out."""
    pytest.importorskip("gguf")
    from rinsho.export.gguf_file import About, write_gguf
    from rinsho.export.weights import open_weights

    model_of("llama").save_pretrained(tmp_path / "llama")
    for folder in (our_folder(tmp_path / "ours"), tmp_path / "llama"):
        estimated = by_form(folder)
        for form in ("f16", "q8_0", "q4_0"):
            file = tmp_path / f"model-{form}.gguf"
            write_gguf(open_weights(folder), file, "llama", form, About("toy"))
            assert estimated[form].weights_bytes == pytest.approx(file.stat().st_size, rel=0.03, abs=60_000)
            assert not estimated[form].ready and estimated[form].runtime == "llama.cpp"


def test_a_gguf_file_is_what_it_is(tmp_path):
    pytest.importorskip("llama_cpp")
    folder = our_folder(tmp_path / "ours")
    product = export(folder, tmp_path / "gguf")
    (file,) = product.glob("*.gguf")
    (need,) = needs(product, slots=2, window=300)
    assert need == needs(file, slots=2, window=300)[0]
    config = json.loads((folder / "config.json").read_text())
    positions = min(300, config["max_position_embeddings"])
    rounded = -(-positions // 256) * 256  # as llama.cpp has it
    assert need.weights_bytes == file.stat().st_size and need.ready
    assert need.cache_bytes == 2 * rounded * memory.cache_numbers(config) * 2
    assert f"memory: {need.form} needs about" in settle(product)
    with pytest.raises(UserError, match="--form is not for GGUF files"):
        settle(product, "int8")
    (product / "second.gguf").write_bytes(file.read_bytes())
    with pytest.raises(UserError, match=f"several models in one folder.*{file.name}"):
        settle(product)
    assert len(needs(product)) == 2


def test_an_adapter_is_counted_with_its_base(tmp_path, llama):
    peft = pytest.importorskip("peft")
    from rinsho import adapters, bases

    model = bases.quantized_base(llama)
    model = adapters.attach(model, peft.LoraConfig(task_type="CAUSAL_LM", r=8, target_modules="all-linear"))
    adapters.save_adapter(model, None, tmp_path / "adapter", llama, {})
    weights = (tmp_path / "adapter" / "adapter_model.safetensors").stat().st_size
    for form, need in by_form(llama).items():
        more = weights if need.ready else 0  # an export is merged
        assert by_form(tmp_path / "adapter")[form].weights_bytes == need.weights_bytes + more
    assert memory.usual_form(tmp_path / "adapter") == "float32"  # as its base was in training
    (tmp_path / "adapter" / "rinsho.json").write_text(json.dumps({"quantization": "nf4", "base_dtype": "bfloat16"}))
    assert memory.usual_form(tmp_path / "adapter") == "int4"


def big(path, *_):
    """A model of 1.2B parameters in float32, as `needs` tells it."""
    sizes = {"float32": 4800, "bfloat16": 2400, "int8": 1500, "int4": 900}
    exports = {"f16": 3200, "q8_0": 1390, "q4_k_m": 800, "q4_0": 780}
    found = [Need(form, "transformers", size * MIB, 800 * MIB, 500 * MIB) for form, size in sizes.items()]
    return found + [Need(form, "llama.cpp", s * MIB, 400 * MIB, 300 * MIB, ready=False) for form, s in exports.items()]


@pytest.mark.parametrize(
    ("form", "free", "said"),
    [
        ("float32", 8000, None),
        ("float32", 4000, r"--form bfloat16 \(3.61 GiB\), or rinsho export M .*'\[f16\]' --out FOLDER \(3.81 GiB\)"),
        ("bfloat16", 3000, r"--form int8 \(2.73 GiB\), or rinsho export M .*'\[q8_0\]'"),
        ("bfloat16", 2400, r"--form int4 \(2.15 GiB\), or rinsho export M .*'\[q8_0\]'"),
        ("bfloat16", 1495, r"smaller: rinsho export M --to gguf --set export.types='\[q4_0\]' --out FOLDER \(1.45"),
        ("bfloat16", 3100 + 200, r"--slots 2"),
        ("int4", 900, "close other programs, or take a machine with more memory"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_does(form, free, said, monkeypatch):
    monkeypatch.setattr(memory, "needs", big)
    monkeypatch.setattr(memory, "available_bytes", lambda: free * MIB)
    monkeypatch.setattr(memory, "card_bytes", lambda: None)
    if said is None:
        line = settle(Path("M"), form, slots=4)
        assert line == (
            "memory: float32 needs about 5.96 GiB (weights 4.69 GiB, cache 800 MiB, program 500 MiB); "
            "this machine has 7.81 GiB free"
        )
        return
    with pytest.raises(UserError, match=said) as refused:
        settle(Path("M"), form, slots=4)
    text = str(refused.value)
    assert text.startswith(f"M: {form} needs about") and "\n" not in text
    offered = [float(number) for number in re.findall(r"\((\d+\.\d+) GiB\)", text.split("smaller:")[-1])]
    assert all(number * 1024 <= free for number in offered)


def test_a_model_that_goes_to_a_card_needs_room_there(monkeypatch):
    monkeypatch.setattr(memory, "needs", big)
    monkeypatch.setattr(memory, "available_bytes", lambda: 64_000 * MIB)
    monkeypatch.setattr(memory, "card_bytes", lambda: 4000 * MIB)
    assert "the graphics card has 3.91 GiB free" in settle(Path("M"), "bfloat16")
    with pytest.raises(UserError, match=r"no more than the graphics card has free.*--form bfloat16.*\[f16\]"):
        settle(Path("M"), "float32")


def test_unknown_memory_and_unknown_forms(llama, monkeypatch):
    assert by_form(llama)["float32"].other_bytes > 400 * MIB
    with pytest.raises(UserError, match="unknown form 'fp32'"):
        settle(llama, "fp32")
    monkeypatch.setattr(memory, "available_bytes", lambda: None)
    monkeypatch.setattr(memory, "card_bytes", lambda: None)
    assert settle(llama, "float32").endswith("what this machine has is not known")
    assert all("unknown" in line for line in table(llama)[1:])


def test_damaged_and_foreign_folders(tmp_path, llama):
    with pytest.raises(UserError, match="no weights in here"):
        needs(tmp_path)
    for content in (b"", b"\xff" * 20, b"\x02\x00\x00\x00\x00\x00\x00\x00[]"):
        (tmp_path / "model.safetensors").write_bytes(content)
        with pytest.raises(UserError, match="whole safetensors file"):
            needs(tmp_path)
    (tmp_path / "model.safetensors").write_bytes((llama / "model.safetensors").read_bytes())
    for content in ("{", "[]", "{}"):  # weights without sizes: told without the cache
        (tmp_path / "config.json").write_text(content)
        found = by_form(tmp_path)
        assert found["float32"].cache_bytes == 0 and "q8_0" not in found
        assert found["float32"].weights_bytes == by_form(llama)["float32"].weights_bytes
    large = {**json.loads((llama / "config.json").read_text()), "max_position_embeddings": 131_072}
    (tmp_path / "config.json").write_text(json.dumps(large))
    per_token = memory.cache_numbers(large) * 4
    assert by_form(tmp_path, slots=2)["float32"].cache_bytes == 2 * memory.LARGEST_WINDOW * per_token
    assert by_form(tmp_path, slots=2, window=20_000)["float32"].cache_bytes == 2 * 20_000 * per_token


def test_both_runtimes_are_made_for_the_same_window():
    from rinsho.generate import llama as other

    assert other.LARGEST_WINDOW == memory.LARGEST_WINDOW and other.BATCH_TOKENS == memory.BATCH_TOKENS


def test_the_limits_of_control_groups_count_but_not_what_files_take(tmp_path):
    def write(name, text):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    assert machine.available_bytes(tmp_path) is None
    write("proc/meminfo", "MemTotal: 9000 kB\nMemAvailable: 8000 kB\n")
    assert machine.available_bytes(tmp_path) == 8_000 * 1024
    write("proc/self/cgroup", "0::/jobs/one\n")
    write("sys/fs/cgroup/jobs/memory.max", "6000000\n")
    write("sys/fs/cgroup/jobs/memory.current", "5000000\n")
    write("sys/fs/cgroup/jobs/memory.stat", "anon 2000000\nactive_file 1000000\ninactive_file 2000000\nshmem 7\n")
    assert machine.available_bytes(tmp_path) == 6_000_000 - 2_000_000
    write("sys/fs/cgroup/jobs/one/memory.max", "max\n")
    assert machine.available_bytes(tmp_path) == 4_000_000
    write("sys/fs/cgroup/jobs/one/memory.max", "1000\n")
    write("sys/fs/cgroup/jobs/one/memory.current", "4000\n")
    write("sys/fs/cgroup/jobs/one/memory.stat", "anon 4000\n")
    assert machine.available_bytes(tmp_path) == 0
    for flags, units in (("avx512_bf16 amx_bf16", "AMX"), ("avx2 avx512_bf16", "AVX-512"), ("avx2", "")):
        write("proc/cpuinfo", f"processor : 0\nflags : fpu {flags}\n")
        assert machine.bfloat16_units(tmp_path) == units


def test_nothing_loads_torch_for_a_gguf_file(tmp_path):
    pytest.importorskip("llama_cpp")
    product = export(our_folder(tmp_path / "ours"), tmp_path / "gguf")
    program = (
        "import sys; from pathlib import Path; from rinsho import memory; from rinsho.doctor import doctor\n"
        f"print(memory.settle(Path({str(product)!r}), None, 4)); assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.startswith("memory: "), done.stderr


MEASURE = """
import sys
from pathlib import Path
from rinsho import memory
folder, form = Path(sys.argv[1]), sys.argv[2]
need = next(need for need in memory.needs(folder, 2, 512) if need.form == form)
from rinsho.generate.batcher import Part
from rinsho.generate.slots import open_torch
decoder = open_torch(folder, 2, 512, 1, form)
for slot in range(2):
    decoder.feed([Part(slot, 0, [5] * 500, "last")])
decoder.feed([Part(slot, 500, [7], "last") for slot in range(2)])
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(int(peak.split()[1]) * 1024, need.total_bytes)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
def test_a_process_takes_about_what_was_said(tmp_path):
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=8000, hidden_size=768, intermediate_size=3072, num_hidden_layers=4, num_attention_heads=12,
        max_position_embeddings=512,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path), "float32"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    peak, said = map(int, done.stdout.split())
    assert 0.7 * said < peak < 1.1 * said
