"""What SFTTrainer would cost at the quickstart's size: import time, tokens/s, and what its checkpoints are made of.

    OMP_NUM_THREADS=1 python benchmarks/finetune_loop.py [steps]

Both sides train the same 2M-parameter model on the same packed rows, bf16 where the processor has it, AdamW, 2,048
tokens a step. Speeds are in seconds of processor time, so that other work on the machine does not count.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROWS, LENGTH, VOCAB = 4, 512, 4000


def import_seconds(line: str) -> float:
    """Wall-clock seconds of one import in a fresh process, the interpreter's own start included."""
    started = time.monotonic()
    subprocess.run([sys.executable, "-c", line], check=True, capture_output=True)
    return time.monotonic() - started


def rows(steps: int):
    """Random rows of conversations of 64 tokens, of which the last 8 are learned."""
    import numpy as np

    from rinsho.tokens import pack_examples

    draw = np.random.default_rng(1)
    examples = [(draw.integers(3, VOCAB, 65).tolist(), [0] * 57 + [1] * 8) for _ in range(steps * ROWS * LENGTH // 64)]
    return pack_examples(examples, LENGTH, pad_id=0)


def model():
    """The quickstart's model."""
    from rinsho.model import ModelSettings, build

    return build(ModelSettings.model_validate("tiny"), VOCAB, 1)


def _bf16() -> bool:
    import torch

    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def ours(steps: int) -> float:
    """Tokens a processor second of rinsho's loop."""
    import torch

    from rinsho.finetune import Recipe
    from rinsho.finetune.loop import Trainer

    packed = rows(steps)

    class Silent:
        partial = out = Path(tempfile.mkdtemp())

    recipe = Recipe(optimizer="adamw", dtype="auto", threads=torch.get_num_threads())
    trainer = Trainer(
        recipe, model(), lambda step: packed.batch(range(step * ROWS, step * ROWS + ROWS)), steps, Silent()
    )
    for _ in range(5):
        trainer.step()
    started = time.process_time()
    for _ in range(steps - 5):
        trainer.step()
    return (steps - 5) * ROWS * LENGTH / (time.process_time() - started)


def theirs(steps: int) -> tuple[float, list[str]]:
    """Tokens a processor second of SFTTrainer on the same rows, and the files of its checkpoint."""
    import torch
    from datasets import Dataset
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    packed = rows(steps).rows
    table = [
        {"input_ids": ids.tolist(), "position_ids": places.tolist(), "labels": [-100, *labels.tolist()[:-1]]}
        for ids, places, labels in zip(packed.input_ids, packed.position_ids, packed.shift_labels, strict=True)
    ]

    def collate(examples):
        return {key: torch.tensor([example[key] for example in examples]) for key in examples[0]}

    words = Tokenizer(models.WordLevel({"a": 0}, "a"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="a", pad_token="a")
    marks: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_args, **_rest):
            marks.append(time.process_time())

    folder = Path(tempfile.mkdtemp())
    config = SFTConfig(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=ROWS,
        learning_rate=2e-3,
        bf16=_bf16(),
        use_cpu=True,
        report_to="none",
        save_steps=steps,
        logging_steps=10,
        disable_tqdm=True,
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
        max_grad_norm=1.0,
        optim="adamw_torch_fused",
        gradient_checkpointing=False,
    )
    net = model()
    net.warnings_issued = {}
    trainer = SFTTrainer(
        model=net,
        args=config,
        train_dataset=Dataset.from_list(table),
        processing_class=tokenizer,
        data_collator=collate,
        callbacks=[Clock()],
    )
    trainer.train()
    files = sorted(path.name for path in next(folder.glob("checkpoint-*")).iterdir())
    return (steps - 5) * ROWS * LENGTH / (marks[-1] - marks[4]), files


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("steps", type=int, nargs="?", default=60)
    steps = parser.parse_args().steps
    for line in (
        "import torch",
        "import rinsho.finetune.work",
        "from trl import SFTTrainer",
        "from transformers import Trainer",
    ):
        print(f"| {line} | {min(import_seconds(line) for _ in range(2)):.1f} s |")
    print(f"| rinsho loop | {ours(steps):,.0f} tokens/processor s |")
    speed, files = theirs(steps)
    print(f"| SFTTrainer | {speed:,.0f} tokens/processor s |")
    print(f"| rinsho loop, again | {ours(steps):,.0f} tokens/processor s |")
    print(f"| SFTTrainer's checkpoint | {', '.join(files)} |")


if __name__ == "__main__":
    main()
