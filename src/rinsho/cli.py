"""The `rinsho` command: one stage per room, `all` for the whole chain, and a few actions.

What there is stands in the tables of `rinsho.cli_parser`; what a stage can be told comes from its `Recipe`. Nothing
heavy is imported before a stage is named, so that `rinsho --help` answers at once.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rinsho.cli_parser import STAGES, STEPS, parse
from rinsho.errors import UserError, from_os_error


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code (0 well, 2 something the user can fix, 130 interrupted)."""
    # Read by OpenMP when torch is loaded. Waiting threads spin 30 times shorter than by default: as fast on an idle
    # machine, and they do not starve each other on a busy one (measured, docs/decisions.md).
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # libraries look at local files only, whatever their defaults
    options = parse(sys.argv[1:] if arguments is None else arguments)
    try:
        return _dispatch(options)
    except UserError as error:
        rank = os.environ.get("RANK", "0")
        if rank != "0":  # if all of torchrun's processes meet this problem, the first one tells it and ends them
            time.sleep(2)
        print(f"rinsho: {'' if rank == '0' else f'process {rank}: '}{error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        if os.environ.get("RANK", "0") == "0":
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
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and options.command != "pretrain":
        raise UserError(
            "several processes were started", where=f"rinsho {options.command}", expected="torchrun for pretrain alone",
            todo="run this command without torchrun",
        )  # fmt: skip
    if options.command in STAGES:
        return _stage(options)
    if options.command in STEPS:
        return _step(options)
    if options.command == "all":
        return _all(options)
    said = _SAYING[options.command](options)
    if said is not None:
        print(said)
    return 0


def _report(options: argparse.Namespace) -> str:
    from rinsho.report import write_report

    return str(write_report(options.run))


def _chat(options: argparse.Namespace) -> None:
    from rinsho import chain
    from rinsho.chat_cli import chat

    chat(
        options.model,
        max_new_tokens=options.max_new_tokens,
        temperature=options.temperature,
        base=options.base,
        adapters=chain.given_folders(options.adapters),
        form=options.form,
    )


def _serve(options: argparse.Namespace) -> None:
    import dataclasses

    from rinsho.serve import ServeOptions, serve

    given = {field.name: getattr(options, field.name) for field in dataclasses.fields(ServeOptions)}
    serve(options.model, ServeOptions(**given | {"allow_hosts": tuple(options.allow_hosts)}))


def _finetune_data(options: argparse.Namespace) -> str:
    from rinsho import chain
    from rinsho.finetune.show import show

    rooms = {"finetune": STAGES["finetune"][0]} if options.recipe is None else _rooms()
    plans, name = chain.resolve(options.recipe, options.overrides, rooms)
    if "finetune" not in plans:
        raise UserError("the recipe has no section 'finetune'", where=options.recipe, expected=", ".join(plans))
    plan = plans["finetune"]
    recipe: Any = plan.recipe
    color = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    return show(recipe, options.inputs or plan.inputs(Path("runs") / name, {}), options.show, color)


def _harness(options: argparse.Namespace) -> str:
    from rinsho.evaluate.harness import write

    return write(
        options.data, options.out, tasks=options.tasks, years=options.years, form=options.form,
        rotations=options.rotations,
    )  # fmt: skip


def _synthesis_prompts(options: argparse.Namespace) -> str:
    from rinsho.synthesize.prompts import write_templates

    written, there = write_templates(options.folder)
    told = f"{len(written)} written, {there} were there" if written else f"all {there} are there, nothing written"
    return "\n".join([*map(str, written), told])


def _analogy(options: argparse.Namespace) -> str:
    from rinsho.analyse.analogy import command

    return command(options.model, options.expressions, options.file, options.count)


def _merge(options: argparse.Namespace) -> str:
    from rinsho.adapter_merge import merge

    prompts = _prompts(options.text) if options.text else []
    return merge(options.adapter, options.out, options.base, options.dtype, prompts).markdown


def _adapter(options: argparse.Namespace) -> str:
    from rinsho.adapters import show

    return show(options.adapter, options.base)


def _prompts(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise UserError("not UTF-8", where=path, expected="a text file, a prompt a line") from None
    prompts = [line for line in lines if line.strip()]
    if not prompts:
        raise UserError("no text in here", where=path, expected="a text file, a prompt a line")
    return prompts


def _inspect(options: argparse.Namespace) -> str:
    from rinsho.corpus.report.inspect import inspect

    return inspect(options.run, reason=options.reason, count=options.count, seed=options.seed, full=options.full)


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


def _describe(options: argparse.Namespace) -> str:
    from rinsho.describe import describe

    return describe(
        options.target,
        overrides=options.overrides,
        rooms=_rooms(),
        vocab_size=options.vocab_size,
        gpus=options.gpus,
        gpu=options.gpu,
        tokens=options.tokens,
    )


def _curves(options: argparse.Namespace) -> str:
    from rinsho.curves_cli import curves

    return str(curves(options.runs, options.out, options.to, options.follow))


def _doctor(options: argparse.Namespace) -> str:
    from rinsho.doctor import doctor

    return doctor(options.model)


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
        return _dry_run(plans, inputs, options.out, options.out)
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
        return _dry_run({options.command: plan}, inputs, run, out)
    chain.raise_all(chain.problems({options.command: plan}, inputs, run))
    report = plan.room.run(plan.recipe, inputs[options.command], out)
    # Sample answers quote documents: they belong into the run folder, not into a terminal that a batch system logs.
    if report.markdown:  # of torchrun's processes the first one alone has something to say
        print(report.markdown.partition("\n## Sample answers")[0].partition("\n## Among published scores")[0])
    if (out / "report.html").is_file():
        print(f"The whole report: {out / 'report.html'}")
    return 0


def _dry_run(plans: Any, inputs: Any, run: Path, out: Path | None = None) -> int:
    from rinsho import chain

    print(chain.describe(plans, inputs))
    found = chain.problems_of_stages(plans, inputs, run)
    for problem in (problem for problems in found.values() for problem in problems):
        print(f"problem: {problem}", file=sys.stderr)
    for stage, plan in plans.items():
        if found[stage] or not hasattr(plan.room, "describe"):
            continue  # what a room says of itself holds for a recipe that can run
        try:
            said = plan.room.describe(plan.recipe, inputs[stage], out or run / stage)
        except UserError as error:  # an earlier stage will make its input
            said = f"not known yet: {error}"
        if said:
            print(f"{stage}: {said}")
    count = sum(map(len, found.values()))
    print(f"dry run: {count} problems; nothing was written", file=sys.stderr)
    return 2 if count else 0


def _rooms() -> dict[str, str]:
    return {stage: module for stage, (module, _, _) in STAGES.items()}


# actions -> what they print
_SAYING: dict[str, Callable[[argparse.Namespace], str | None]] = {
    "report": _report,
    "chat": _chat,
    "serve": _serve,
    "model describe": _describe,
    "curves": _curves,
    "doctor": _doctor,
    "corpus inspect": _inspect,
    "corpus report": _corpus_report,
    "tokenizer measure": _measure,
    "finetune data": _finetune_data,
    "evaluate harness": _harness,
    "synthesize prompts": _synthesis_prompts,
    "analyse analogy": _analogy,
    "adapter show": _adapter,
    "adapter merge": _merge,
}
