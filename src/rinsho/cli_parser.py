"""What the command line understands: the tables of stages, steps and actions, and their options."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import rinsho
from rinsho.cli_options import (
    FORM_HELP,
    FORMS,
    add_serve,
    add_short,
    count,
    positive,
    temperature,
    unknown_option,
    with_short,
)

# stage -> (module, what goes in, what comes out), in the order in which `all` runs them
STAGES = {
    "samples": ("rinsho.samples", "nothing", "invented Japanese clinical text, lexicon and benchmark-shaped tasks"),
    "synthesize": (
        "rinsho.synthesize", "[TOPICS...] [DOCUMENTS...]",
        "textbook texts, exercises and instructions that teacher models write, and what was set aside with its reason",
    ),
    "corpus": ("rinsho.corpus", "TEXT...", "clean, deduplicated shards, and what was dropped with its reason"),
    "quality": ("rinsho.quality", "CORPUS", "the documents a classifier takes for good, and what it dropped"),
    "tokenizer": ("rinsho.tokenizer", "CORPUS... [LEXICON.csv...]", "a tokenizer folder (MeCab + Unigram)"),
    "pretrain": ("rinsho.pretrain", "TOKENIZER CORPUS...", "a base model folder"),
    "finetune": ("rinsho.finetune", "MODEL DATA...", "an instruct model folder, or an adapter"),
    "evaluate": (
        "rinsho.evaluate", "MODEL... DATA... [WORDS.csv...]", "answers, scores with chance level and 95 % interval",
    ),
    "analyse": (
        "rinsho.analyse", "MODEL [RUN...] [EVALUATION...] [WORDS...] [CORPUS...]",
        "maps of the embedding, analogies, attention, curves and samples of text, in one page",
    ),
    "export": (
        "rinsho.export", "MODEL [EVALUATION...]", "the model in another form, compared with the original, and its card",
    ),
}  # fmt: skip
DETAILS = {
    "synthesize": """
TOPICS: word lists, or a folder of `rinsho tokenizer lexicon`, for textbooks and examinations. DOCUMENTS: texts that
reading exercises are made of. `rinsho synthesize prompts FOLDER` writes the prompts, to be edited.""",
    "analyse": """
MODEL: a model folder. RUN: further training runs, for curves. EVALUATION: folders of `rinsho evaluate`, for scores over
seen tokens. WORDS: word lists that colour the maps. CORPUS: documents whose attention is looked at.
`rinsho analyse analogy --help`: the words nearest to a - b + c.""",
    "evaluate": """
MODEL: a model or adapter folder, a GGUF file or a folder of them, the YAML file of an endpoint, answers.jsonl, an
earlier evaluation, or a folder of checkpoints. DATA: folders or files of questions (docs/tasks.md). WORDS: word lists
for the copy-the-lexicon baseline.
`rinsho evaluate harness --help`: the same questions for lm-evaluation-harness.""",
    "export": """
MODEL: a model or adapter folder (an adapter is merged into its base). EVALUATION: folders of `rinsho evaluate`, whose
scores stand in the model card.""",
}
ACTIONS = {
    "all": "run the stages of a recipe in order, skipping what is finished",
    "report": "write report.html of a run folder (`all` does it at its end)",
    "synthesize prompts": "write the prompts of synthesis into a folder, as files to be edited",
    "analyse analogy": "the tokens nearest to an expression such as '脳出血 - 脳 + 消化管', with their cosine",
    "chat": "talk to a model folder or a GGUF file, or to adapters on one base",
    "serve": "answer over HTTP like OpenAI's interface, extract and classify, with a web page; on this machine alone",
    "finetune data": "what data sets hold for a model: rows, lengths, mixture, steps, rendered examples; prints text",
    "evaluate harness": "the same questions as tasks of lm-evaluation-harness, for models that are tested there",
    "adapter show": "what an adapter is: method, size, its base and whether that is the given one",
    "adapter merge": "an adapter and its base as one plain model folder, with the largest change of a logit",
    "model describe": "parameters, FLOPs, memory while training, key/value cache of a recipe, preset or model folder",
    "curves": "the curves of training runs: a page, a picture, a table, or the files of TensorBoard and W&B",
    "doctor": "what is installed, what this machine can do, what is missing for which command",
    "corpus inspect": "show a random sample of what a corpus run dropped for a reason, or kept; prints text",
    "corpus report": "write the report of a corpus run again, with token counts when a tokenizer is given",
    "tokenizer measure": "compare tokenizers on texts: characters a token, whole terms, exactness, speed; with a page",
}
# steps of a room, and rooms outside the chain: command -> (section of --set, module, what goes in, what comes out)
STEPS = {
    "tokenizer lexicon": (
        "lexicon", "rinsho.tokenizer.lexicon", "WORDS... [CORPUS...]",
        "a table of terms and a MeCab user dictionary; false merges are measured on the corpus",
    ),
    "extract": (
        "extract", "rinsho.extract", "MODEL DATA...",
        "diseases, medicines and values with their places in the texts and the model's probability",
    ),
    "classify": (
        "classify", "rinsho.classify", "MODEL DATA...",
        "one of the options for each text, with the probability of each",
    ),
    "tokenizer encode": (
        "encode", "rinsho.tokenizer.encode", "TOKENIZER CORPUS...", "token files, which pretrain takes for a corpus",
    ),
}  # fmt: skip


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The words of a command line as options; argparse ends the program at a wrong one."""
    parser = argparse.ArgumentParser(
        prog="rinsho",
        description="Build, adapt, evaluate and serve a small language model for Japanese clinical text.",
    )
    parser.add_argument("--version", action="version", version=f"rinsho {rinsho.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    named = arguments[0] if arguments and arguments[0] in STAGES and _wants_help(arguments) else None
    for name, (module, takes, gives) in STAGES.items():
        epilog = _settings_help(name, importlib.import_module(module)) if name == named else None
        command = commands.add_parser(
            name,
            help=f"{takes} -> {gives}".replace("%", "%%"),
            description=f"Takes {takes}; gives {gives}.{DETAILS.get(name, '')}",
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_argument("inputs", nargs="*", type=Path, metavar="INPUT", help=takes)
        _common(command, "run folder (default: runs/<recipe name>/" + name + ")")
        add_short(command, name)
        if name == "quality":
            command.add_argument(
                "--preview", dest="overrides", action="append_const", const="quality.preview=true",
                help="say cost and expected yield from a small sample, and stop before the full pass",
            )  # fmt: skip
    _add_actions(commands)
    _add_steps(commands, arguments)
    _add_measure(commands)
    words = list(arguments)
    if " ".join(words[:2]) in ACTIONS | STEPS:  # `corpus inspect RUN`; an input of that name is ./inspect
        words[:2] = [" ".join(words[:2])]
    options, unknown = parser.parse_known_args(words)
    if options.command == "analyse analogy":  # argparse takes no expressions after an option
        options.expressions += [word for word in unknown if _is_expression(word)]
        unknown = [word for word in unknown if not _is_expression(word)]
    if unknown:
        commands.choices[options.command].error(unknown_option(commands.choices[options.command], unknown))
    return with_short(options)


def _add_actions(commands: Any) -> None:
    everything = commands.add_parser("all", help=ACTIONS["all"], description=ACTIONS["all"])
    everything.add_argument(
        "given", nargs="*", metavar="NAME=FOLDER", help="folders that the recipe's inputs name in braces"
    )
    _common(everything, "run folder (default: runs/<recipe name>)")
    _add_corpus_actions(commands)
    _add_model_actions(commands)
    _add_finetune_actions(commands)
    _add_harness(commands)
    _add_synthesis_actions(commands)
    report = commands.add_parser("report", help=ACTIONS["report"], description=ACTIONS["report"])
    report.add_argument("run", type=Path, metavar="RUN")
    chat = commands.add_parser("chat", help=ACTIONS["chat"], description=ACTIONS["chat"])
    chat.add_argument("model", type=Path, metavar="MODEL")
    chat.add_argument("--base", type=Path, metavar="BASE", help="the base of an adapter (default: the recorded one)")
    chat.add_argument(
        "--adapter", dest="adapters", action="append", default=[], metavar="NAME=FOLDER",
        help="an adapter on MODEL; may be repeated: /adapter NAME switches in the conversation",
    )  # fmt: skip
    chat.add_argument("--max-new-tokens", type=positive, default=200, help="room for an answer, in tokens")
    chat.add_argument("--temperature", type=temperature, default=0.0, help="0 takes the likeliest token each time")
    chat.add_argument("--form", choices=FORMS, help=FORM_HELP)
    add_serve(commands, ACTIONS["serve"])
    doctor = commands.add_parser("doctor", help=ACTIONS["doctor"], description=ACTIONS["doctor"])
    doctor.add_argument("model", type=Path, nargs="?", metavar="MODEL", help="also say what this model needs")


def _add_corpus_actions(commands: Any) -> None:
    about = ACTIONS["corpus inspect"]
    sample = commands.add_parser("corpus inspect", help=about, description=f"{about}. Without a reason: lists them.")
    sample.add_argument("run", type=Path, metavar="RUN", help="the folder of a corpus run")
    sample.add_argument("--reason", metavar="X", help="a reason of the report, or kept")
    sample.add_argument("--count", type=positive, default=10, metavar="N", help="documents (10)")
    sample.add_argument("--seed", type=int, default=1, metavar="S", help="another seed is another sample (1)")
    sample.add_argument("--full", action="store_true", help="whole texts instead of 400 characters")
    about = ACTIONS["corpus report"]
    again = commands.add_parser("corpus report", help=about, description=about)
    again.add_argument("run", type=Path, metavar="RUN", help="the folder of a corpus run")
    again.add_argument("--tokenizer", type=Path, metavar="FOLDER", help="count the tokens of each source with it")
    again.add_argument(
        "--max-documents-per-source", type=positive, metavar="N", help="count about as many and scale up"
    )


def _add_model_actions(commands: Any) -> None:
    about = ACTIONS["model describe"]
    describe = commands.add_parser("model describe", help=about, description=about)
    describe.add_argument(
        "target", metavar="RECIPE|PRESET|MODEL", help="a recipe file, a preset's name, a model folder"
    )
    describe.add_argument(
        "--set", dest="overrides", action="append", default=[], metavar="pretrain.KEY=VALUE", help="change one setting"
    )
    describe.add_argument("--vocab-size", type=positive, metavar="N", help="of a tokenizer that is not there yet")
    describe.add_argument("--gpus", type=positive, default=1, metavar="N", help="cards that share a step (1)")
    describe.add_argument("--gpu", metavar="NAME", help="the card: rows that fit, tokens a second, days")
    describe.add_argument("--tokens", type=positive, metavar="N", help="to train on (default: the recipe's)")
    about = ACTIONS["curves"]
    curves = commands.add_parser("curves", help=about, description=about)
    curves.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folders, or folders above several")
    curves.add_argument("--out", type=Path, metavar="FOLDER", help="where to write (default: curves/ beside them)")
    forms = ("page", "png", "csv", "tensorboard", "wandb")
    curves.add_argument("--to", choices=forms, default="page", help="what to write (page)")
    curves.add_argument("--follow", action="store_true", help="go on until the runs are done")


def _add_finetune_actions(commands: Any) -> None:
    about = ACTIONS["finetune data"]
    data = commands.add_parser("finetune data", help=about, description=f"{about}. Nothing is written or trained.")
    data.add_argument(
        "inputs", nargs="*", type=Path, metavar="INPUT", help="MODEL DATA...; of the model its tokenizer is enough"
    )
    data.add_argument("--recipe", type=Path, metavar="FILE", help="YAML recipe; without it the defaults hold")
    data.add_argument(
        "--set", dest="overrides", action="append", default=[], metavar="finetune.KEY=VALUE",
        help="change one setting; may be repeated",
    )  # fmt: skip
    data.add_argument("--show", type=count, default=1, metavar="N", help="rendered examples of each task (1)")
    about = ACTIONS["adapter show"]
    show = commands.add_parser("adapter show", help=about, description=about)
    about = ACTIONS["adapter merge"]
    merge = commands.add_parser("adapter merge", help=about, description=about)
    for command in (show, merge):
        command.add_argument("adapter", type=Path, metavar="ADAPTER", help="a folder of rinsho finetune")
        command.add_argument("--base", type=Path, metavar="BASE", help="its base model (default: the recorded one)")
    merge.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="the model folder that is written")
    merge.add_argument(
        "--dtype", choices=("float32", "bfloat16"), default="float32", help="number form of the weights (float32)"
    )
    merge.add_argument("--text", type=Path, metavar="FILE", help="lines to compare logits on (default: invented ones)")


def _add_harness(commands: Any) -> None:
    about = ACTIONS["evaluate harness"]
    harness = commands.add_parser("evaluate harness", help=about, description=about)
    harness.add_argument("data", nargs="+", type=Path, metavar="DATA", help="folders or files of questions")
    harness.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="the tasks, for --include_path")
    harness.add_argument("--tasks", nargs="+", metavar="TASK", help="only these (igakuqa is one)")
    harness.add_argument("--form", choices=("letter", "text_letter"), default="letter", help="of the answers (letter)")
    harness.add_argument("--rotations", type=count, default=0, metavar="N", help="further orders of the options (0)")
    harness.add_argument("--years", nargs="+", type=positive, metavar="YEAR", help="IgakuQA years (all)")


def _add_synthesis_actions(commands: Any) -> None:
    about = ACTIONS["synthesize prompts"]
    prompts = commands.add_parser("synthesize prompts", help=about, description=f"{about}. Nothing is overwritten.")
    prompts.add_argument("folder", type=Path, metavar="FOLDER", help="named in synthesize.prompts afterwards")
    about = ACTIONS["analyse analogy"]
    analogy = commands.add_parser("analyse analogy", help=about, description=about)
    analogy.add_argument("model", type=Path, metavar="MODEL", help="a model folder")
    analogy.add_argument("expressions", nargs="*", metavar="EXPRESSION", help="such as '脳出血 - 脳 + 消化管'")
    analogy.add_argument("--file", type=Path, metavar="FILE", help="a table of analogies (docs/analyse.md)")
    analogy.add_argument("--count", type=positive, default=10, metavar="N", help="tokens of each answer (10)")


def _is_expression(word: str) -> bool:
    return not word.startswith("-") or " " in word  # - 脳 + 心臓


def _add_steps(commands: Any, arguments: Sequence[str]) -> None:
    named = (arguments[0], " ".join(arguments[:2])) if _wants_help(arguments) else ()
    for name, (section, module, takes, gives) in STEPS.items():
        step = commands.add_parser(
            name,
            help=f"{takes} -> {gives}",
            description=f"Takes {takes}; gives {gives}.",
            epilog=_settings_help(section, importlib.import_module(module)) if name in named else None,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        step.add_argument("inputs", nargs="+", type=Path, metavar="INPUT", help=takes)
        _run_options(step, "the folder that is written", required=True)
        add_short(step, name)


def _add_measure(commands: Any) -> None:
    about = ACTIONS["tokenizer measure"]
    measure = commands.add_parser("tokenizer measure", help=about, description=about)
    measure.add_argument(
        "tokenizers", nargs="+", type=Path, metavar="TOKENIZER", help="ours or any Hugging Face folder"
    )
    measure.add_argument(
        "--text",
        nargs="+",
        required=True,
        metavar="NAME=FOLDER",
        help="texts to measure on, for instance medical=notes; give the tokenizers first",
    )
    measure.add_argument("--lexicon", nargs="+", default=[], type=Path, metavar="WORDS", help="word lists")
    measure.add_argument("--show", type=Path, metavar="FILE", help="a text to show with its tokens (default: invented)")
    measure.add_argument("--limit-mb", type=float, default=5.0, metavar="MB", help="of each text (default 5)")
    measure.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="report, chart and page")


def _common(command: argparse.ArgumentParser, out_help: str) -> None:
    command.add_argument("--recipe", type=Path, metavar="FILE", help="YAML recipe; without it the defaults hold")
    _run_options(command, out_help)


def _run_options(command: argparse.ArgumentParser, out_help: str, required: bool = False) -> None:
    command.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="STAGE.KEY=VALUE",
        help="change one setting; may be repeated",
    )
    command.add_argument("--out", type=Path, required=required, metavar="FOLDER", help=out_help)
    command.add_argument(
        "--dry-run",
        action="store_true",
        help="print the resolved recipe and every problem that can be known, then stop",
    )


def _wants_help(arguments: Sequence[str]) -> bool:
    return "-h" in arguments or "--help" in arguments


def _settings_help(name: str, module: ModuleType) -> str:
    """The settings of a stage with type, default and meaning, from its `Recipe`."""
    return "\n".join(["settings (recipe section or --set):", *_field_lines(name, module.Recipe)])


def _kind(annotation: Any) -> str:
    """A type in the words of a recipe."""
    parts = get_args(annotation)
    if get_origin(annotation) is Literal:
        return " | ".join(map(str, parts))
    if get_origin(annotation) in (Union, UnionType):
        return " | ".join(_kind(part) for part in parts)
    if get_origin(annotation) is tuple:
        return f"[{', '.join(_kind(part) for part in parts)}]".replace("Ellipsis", "...")
    plain = {bool: "true | false", type(None): "null"}
    return plain.get(annotation) or getattr(annotation, "__name__", None) or str(annotation).replace("typing.", "")


def _field_lines(prefix: str, settings: Any) -> list[str]:
    lines = []
    for key, field in settings.model_fields.items():
        kind = _kind(field.annotation)
        inner = next((part for part in get_args(field.annotation) if hasattr(part, "model_fields")), None)
        if inner is not None:  # a tuple of settings, settings by name, or settings that may be left out
            few, ending = {"dict": ("by name", ".NAME"), "tuple": ("list of", "[]")}.get(
                getattr(get_origin(field.annotation), "__name__", ""), ("null, or", "")
            )
            lines += [f"  {prefix}.{key} ({few} the following)"]
            lines += [f"      {field.description}", *_field_lines(f"{prefix}.{key}{ending}", inner)]
            continue
        nested = hasattr(field.annotation, "model_fields")
        default = "required" if field.is_required() else repr(field.get_default(call_default_factory=True))
        lines.append(f"  {prefix}.{key} ({kind})" if nested else f"  {prefix}.{key} ({kind}, {default})")
        lines.append(f"      {field.description}")
        if nested:
            lines += _field_lines(f"{prefix}.{key}", field.annotation)
    return lines
