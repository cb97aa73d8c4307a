"""The page of an export."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def markdown(export: Mapping[str, Any], seconds: Mapping[str, Mapping[str, float]]) -> str:
    """Files with their figures, and what the tokenizer inside a GGUF makes of texts."""
    told, gguf = export["checks"], export["to"] == "gguf"
    kind = f"GGUF, flavour {export['flavour']}" if gguf else f"{export['to']}, {export['dtype']}"
    runtime = "llama.cpp" if gguf else "transformers without rinsho"
    lines = [
        f"# Export of {export['title']} ({kind})", "",
        f"Logits against the model in float32, on {told['prompts']} prompts of {told['texts']} texts"
        f" ({told['tokens']:,} tokens), in {runtime}.", "",
        "| file | MB | first choice equal | mean KL | largest KL | largest difference | written, s | checked, s |",
        "| --- " + "| ---: " * 7 + "|",
    ]  # fmt: skip
    for row in export["files"]:
        found, time = row["checks"], seconds[row["name"]]
        lines.append(
            f"| {row['name']} | {row['size_bytes'] / 1e6:,.1f} | {found['top1']:.2%} | {found['mean_kl']:.1e} |"
            f" {found['largest_kl']:.1e} | {found['largest_difference']:.1e} |"
            f" {time['writing']} | {time['checking']} |"
        )
    return "\n".join(lines + (_inside(export) if gguf else [])) + "\n"


def _inside(export: Mapping[str, Any]) -> list[str]:
    inside = export["tokenizer_inside"]
    if inside["model"] == "no_vocab":
        return ["", "The files hold no tokenizer: they are fed ids, by `rinsho serve` or `rinsho chat`."]
    raw, cleaned = inside["raw"], inside["cleaned"]
    end = (
        "It spells every text as ours whose characters all have a piece."
        if inside["exact"]
        else "Programs that feed text, not ids, get other answers: go through `rinsho serve`."
    )
    return [
        "", f"Tokenizer inside the file, against rinsho's, on {inside['texts']} texts:", "",
        "| | texts with the same ids | ids that are the same |", "| --- | ---: | ---: |",
        f"| raw | {raw['identical']:.1%} | {raw['equal_ids']:.1%} |",
        f"| cleaned first | {cleaned['identical']:.1%} | {cleaned['equal_ids']:.1%} |", "",
        f"{end} Characters without a piece become `<unk>` there ({inside['texts_with_bytes']} of the texts have one).",
    ]  # fmt: skip
