"""The `rinsho` command: one stage per room, `all` for the whole chain, and a few actions.

The table STAGES is the whole wiring; what a stage can be told comes from its `Recipe`. Nothing heavy is imported
before a stage is named, so that `rinsho --help` answers at once.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, get_args, get_origin

import rinsho
from rinsho.errors import UserError, from_os_error

# stage -> (module, what goes in, what comes out), in the order in which `all` runs them
STAGES = {
    "samples": ("rinsho.samples", "nothing", "invented Japanese clinical text, lexicon and benchmark-shaped tasks"),
    "corpus": ("rinsho.corpus", "TEXT...", "clean, deduplicated shards, and what was dropped with its reason"),
    "quality": ("rinsho.quality", "CORPUS", "the documents a classifier takes for good, and what it dropped"),
    "tokenizer": ("rinsho.tokenizer", "CORPUS... [LEXICON.csv...]", "a tokenizer folder (MeCab + Unigram)"),
    "pretrain": ("rinsho.pretrain", "TOKENIZER CORPUS...", "a base model folder"),
    "finetune": ("rinsho.finetune", "MODEL DATA...", "an instruct model folder"),
    "evaluate": ("rinsho.evaluate", "MODEL DATA...", "answers, scores with chance level and 95 % interval"),
}
ACTIONS = {
    "all": "run the stages of a recipe in order, skipping what is finished",
    "report": "write report.html of a run folder (`all` does it at its end)",
    "chat": "talk to a model folder",
    "doctor": "what is installed, what this machine can do, what is missing for which command",
    "corpus inspect": "show a random sample of what a corpus run dropped for a reason, or kept; prints text",
    "corpus report": "write the report of a corpus run again, with token counts when a tokenizer is given",
    "tokenizer measure": "compare tokenizers on texts: characters a token, whole terms, exactness, speed; with a page",
}
# steps of a room that are useful alone: command -> (section of --set, module, what goes in, what comes out)
STEPS = {
    "tokenizer lexicon": (
        "lexicon", "rinsho.tokenizer.lexicon", "WORDS... [CORPUS...]",
        "a table of terms and a MeCab user dictionary; false merges are measured on the corpus",
    ),
    "tokenizer encode": (
        "encode", "rinsho.tokenizer.encode", "TOKENIZER CORPUS...", "token files, which pretrain takes for a corpus",
    ),
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code (0 well, 2 something the user can fix, 130 interrupted)."""
    # Read by OpenMP when torch is loaded. Waiting threads spin 30 times shorter than by default: as fast on an idle
    # machine, and they do not starve each other on a busy one (measured, docs/decisions.md).
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # libraries look at local files only, whatever their defaults
    options = _parse(sys.argv[1:] if arguments is None else arguments)
    try:
        return _dispatch(options)
    except UserError as error:
        print(f"rinsho: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("rinsho: interrupted; run the same command again to continue", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 0
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "rinsho":
            raise
        missing = UserError(
            f"the package {error.name} is not installed",
            where=f"rinsho {options.command}",
            expected="an installation with the extra of this command",
            todo="pip install 'rinsho[all]'; rinsho doctor tells what is missing for which command",
        )
        print(f"rinsho: {missing}", file=sys.stderr)
        return 2
    except Exception as error:
        known = from_os_error(error)
        if known is None:
            raise
        print(f"rinsho: {known}", file=sys.stderr)
        return 2


def _dispatch(options: argparse.Namespace) -> int:
    if options.command in STAGES:
        return _stage(options)
    if options.command in STEPS:
        return _step(options)
    if options.command == "all":
        return _all(options)
    if options.command == "report":
        from rinsho.report import write_report

        print(write_report(options.run))
    elif options.command == "chat":
        from rinsho.chat_cli import chat

        chat(options.model, max_new_tokens=options.max_new_tokens, temperature=options.temperature)
    elif options.command == "corpus inspect":
        from rinsho.corpus.report.inspect import inspect

        print(inspect(options.run, reason=options.reason, count=options.count, seed=options.seed, full=options.full))
    elif options.command == "corpus report":
        print(_corpus_report(options))
    elif options.command == "tokenizer measure":
        print(_measure(options))
    else:
        from rinsho.doctor import doctor

        print(doctor(options.model))
    return 0


def _corpus_report(options: argparse.Namespace) -> str:
    from rinsho.corpus.report import rewrite
    from rinsho.corpus.report.token_counts import with_tokens

    if options.tokenizer is None:
        return rewrite(options.run).markdown
    most = options.max_documents_per_source
    return with_tokens(options.run, options.tokenizer, max_documents_per_source=most).markdown


def _measure(options: argparse.Namespace) -> str:
    from rinsho import chain
    from rinsho.tokenizer.measure import measure

    texts = chain.given_folders(options.text)
    return measure(
        options.tokenizers,
        texts,
        lexicon=options.lexicon,
        show=options.show,
        limit_mb=options.limit_mb,
        out=options.out,
    ).markdown


def _step(options: argparse.Namespace) -> int:
    """A step of a room by itself: like a stage, but without a recipe file."""
    from rinsho import chain

    section, module, _, _ = STEPS[options.command]
    try:
        plan = chain.resolve(None, options.overrides, {section: module})[0][section]
    except UserError as error:
        todo = f"settings and their meaning: rinsho {options.command} --help"
        raise UserError(error.what, where=error.where, expected=error.expected, todo=todo) from None
    plans, inputs = {section: plan}, {section: options.inputs}
    if options.dry_run:
        return _dry_run(plans, inputs, options.out)
    chain.raise_all(chain.problems(plans, inputs, options.out))
    print(plan.room.run(plan.recipe, options.inputs, options.out).markdown)
    return 0


def _all(options: argparse.Namespace) -> int:
    from rinsho import chain
    from rinsho.recipe import unknown

    if options.recipe is None:
        raise UserError(
            "no recipe was given", where="rinsho all", expected="--recipe recipes/quickstart.yaml or another"
        )
    plans, name = chain.resolve(options.recipe, options.overrides, _rooms())
    run = options.out or Path("runs") / name
    given = chain.given_folders(options.given)
    wanted = {name for plan in plans.values() for name in plan.given_names()}
    for name in given.keys() - wanted:
        raise unknown(name, sorted(wanted), f"{name}={given[name]}", "input name")
    inputs = {stage: plan.inputs(run, given) for stage, plan in plans.items()}
    if options.dry_run:
        return _dry_run(plans, inputs, run)
    page = chain.run_all(plans, inputs, run)
    from rinsho.report import terminal_table

    print(terminal_table(run))
    print(f"The whole report: {page}")
    if (run / "finetune" / "DONE").exists():
        print(f"Talk to the model: rinsho chat {run / 'finetune'}")
    return 0


def _stage(options: argparse.Namespace) -> int:
    from rinsho import chain

    rooms = {options.command: _rooms()[options.command]} if options.recipe is None else _rooms()
    plans, name = chain.resolve(options.recipe, options.overrides, rooms)
    if options.command not in plans:
        raise UserError(
            f"the recipe has no section {options.command!r}", where=options.recipe, expected=", ".join(plans)
        )
    run = options.out.parent if options.out else Path("runs") / name
    out = options.out or run / options.command
    plan = plans[options.command]
    inputs = {options.command: options.inputs or plan.inputs(run, {})}
    if options.dry_run:
        return _dry_run({options.command: plan}, inputs, run)
    chain.raise_all(chain.problems({options.command: plan}, inputs, run))
    report = plan.room.run(plan.recipe, inputs[options.command], out)
    # Sample answers quote documents: they belong into the run folder, not into a terminal that a batch system logs.
    print(report.markdown.partition("\n## Sample answers")[0])
    return 0


def _dry_run(plans: Any, inputs: Any, run: Path) -> int:
    from rinsho import chain

    print(chain.describe(plans, inputs))
    for stage, plan in plans.items():
        if hasattr(plan.room, "describe") and (said := plan.room.describe(plan.recipe, inputs[stage])):
            print(f"{stage}: {said}")
    found = chain.problems(plans, inputs, run)
    for problem in found:
        print(f"problem: {problem}", file=sys.stderr)
    print(f"dry run: {len(found)} problems; nothing was written", file=sys.stderr)
    return 2 if found else 0


def _rooms() -> dict[str, str]:
    return {stage: module for stage, (module, _, _) in STAGES.items()}


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
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
            description=f"Takes {takes}; gives {gives}.".replace("%", "%%"),
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_argument("inputs", nargs="*", type=Path, metavar="INPUT", help=takes)
        _common(command, "run folder (default: runs/<recipe name>/" + name + ")")
        if name == "quality":
            command.add_argument(
                "--preview", dest="overrides", action="append_const", const="quality.preview=true",
                help="say cost and expected yield from a small sample, and stop before the full pass",
            )  # fmt: skip
    _add_actions(commands)
    _add_tokenizer_actions(commands, arguments)
    words = list(arguments)
    if " ".join(words[:2]) in ACTIONS | STEPS:  # `corpus inspect RUN`; an input of that name is ./inspect
        words[:2] = [" ".join(words[:2])]
    return parser.parse_args(words)


def _add_actions(commands: Any) -> None:
    everything = commands.add_parser("all", help=ACTIONS["all"], description=ACTIONS["all"])
    everything.add_argument(
        "given", nargs="*", metavar="NAME=FOLDER", help="folders that the recipe's inputs name in braces"
    )
    _common(everything, "run folder (default: runs/<recipe name>)")
    _add_corpus_actions(commands)
    report = commands.add_parser("report", help=ACTIONS["report"], description=ACTIONS["report"])
    report.add_argument("run", type=Path, metavar="RUN")
    chat = commands.add_parser("chat", help=ACTIONS["chat"], description=ACTIONS["chat"])
    chat.add_argument("model", type=Path, metavar="MODEL")
    chat.add_argument("--max-new-tokens", type=_positive, default=200, help="room for an answer, in tokens")
    chat.add_argument("--temperature", type=float, default=0.0, help="0 takes the likeliest token each time")
    doctor = commands.add_parser("doctor", help=ACTIONS["doctor"], description=ACTIONS["doctor"])
    doctor.add_argument("model", type=Path, nargs="?", metavar="MODEL", help="also say what this model needs")


def _add_corpus_actions(commands: Any) -> None:
    about = ACTIONS["corpus inspect"]
    sample = commands.add_parser("corpus inspect", help=about, description=f"{about}. Without a reason: lists them.")
    sample.add_argument("run", type=Path, metavar="RUN", help="the folder of a corpus run")
    sample.add_argument("--reason", metavar="X", help="a reason of the report, or kept")
    sample.add_argument("--count", type=_positive, default=10, metavar="N", help="documents (10)")
    sample.add_argument("--seed", type=int, default=1, metavar="S", help="another seed is another sample (1)")
    sample.add_argument("--full", action="store_true", help="whole texts instead of 400 characters")
    about = ACTIONS["corpus report"]
    again = commands.add_parser("corpus report", help=about, description=about)
    again.add_argument("run", type=Path, metavar="RUN", help="the folder of a corpus run")
    again.add_argument("--tokenizer", type=Path, metavar="FOLDER", help="count the tokens of each source with it")
    again.add_argument(
        "--max-documents-per-source", type=_positive, metavar="N", help="count about as many and scale up"
    )


def _add_tokenizer_actions(commands: Any, arguments: Sequence[str]) -> None:
    named = " ".join(arguments[:2]) if _wants_help(arguments) else None
    for name, (section, module, takes, gives) in STEPS.items():
        step = commands.add_parser(
            name,
            help=f"{takes} -> {gives}",
            description=f"Takes {takes}; gives {gives}.",
            epilog=_settings_help(section, importlib.import_module(module)) if name == named else None,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        step.add_argument("inputs", nargs="+", type=Path, metavar="INPUT", help=takes)
        _run_options(step, "the folder that is written", required=True)
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


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError("must be a number of 1 or more")
    number = int(text)
    return number


def _wants_help(arguments: Sequence[str]) -> bool:
    return "-h" in arguments or "--help" in arguments


def _settings_help(name: str, module: ModuleType) -> str:
    """The settings of a stage with type, default and meaning, from its `Recipe`."""
    return "\n".join(["settings (recipe section or --set):", *_field_lines(name, module.Recipe)])


def _field_lines(prefix: str, settings: Any) -> list[str]:
    lines = []
    for key, field in settings.model_fields.items():
        kind = getattr(field.annotation, "__name__", None) or str(field.annotation).replace("typing.", "")
        if get_origin(field.annotation) is Literal:
            kind = " | ".join(map(str, get_args(field.annotation)))
        inner = next((part for part in get_args(field.annotation) if hasattr(part, "model_fields")), None)
        if inner is not None:  # a tuple of settings
            lines += [f"  {prefix}.{key} (list of the following)", f"      {field.description}"]
            lines += _field_lines(f"{prefix}.{key}[]", inner)
            continue
        nested = hasattr(field.annotation, "model_fields")
        default = "required" if field.is_required() else repr(field.get_default(call_default_factory=True))
        lines.append(f"  {prefix}.{key} ({kind})" if nested else f"  {prefix}.{key} ({kind}, {default})")
        lines.append(f"      {field.description}")
        if nested:
            lines += _field_lines(f"{prefix}.{key}", field.annotation)
    return lines
