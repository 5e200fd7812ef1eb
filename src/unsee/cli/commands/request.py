"""Receive deletion requests, unlearn them, and keep the ledger and receipts."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from unsee.cli.commands._shared import OK, UNFORGOTTEN, print_remark, say
from unsee.errors import UserError

DEFAULT: Final = "requests"
"""Folder of a project, unless --project says another."""
_REASONS: Final = {"no_baseline": "not_in_model", "withdrawn": "withdrawn", "refused": ""}
"""Decision -> the reason where none is given."""


def options(parser: argparse.ArgumentParser) -> None:
    """Add the actions of the command, with their options."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True, parser_class=type(parser))

    def action_(
        name: str, text: str, *, one: bool = False, many: str = "", reads: bool = False
    ) -> argparse.ArgumentParser:
        subparser: argparse.ArgumentParser = actions.add_parser(name, help=text, description=text, allow_abbrev=False)
        if one:
            subparser.add_argument("request", metavar="ID", help="request, as `unsee request list` prints it")
        if many:
            subparser.add_argument("requests", nargs="*", metavar="ID", help=f"requests ({many})")
        subparser.add_argument("--project", default=DEFAULT, metavar="DIR", help=f"folder (default: {DEFAULT})")
        if not reads:
            subparser.add_argument(
                "--operator", default="", metavar="CODE", help="who does it, as a code without blanks"
            )
        return subparser

    add = action_("add", "receive a request: find the person, ask the model, fill the rows")
    add.add_argument("--name", required=True, metavar="NAME", help="name of the person or thing")
    add.add_argument(
        "--image", action="extend", nargs="+", default=[], metavar="FILE", help="pictures of the person; repeatable"
    )
    add.add_argument("--attribute", action="append", default=[], metavar="FACT", help="only this fact; repeatable")
    add.add_argument(
        "--private", action="append", default=[], metavar="FACT=TEXT", help="a string that must go; repeatable"
    )
    add.add_argument("--entity", default="", metavar="E", help="identifier in the data, where the name does not tell")
    add.add_argument("--due", default="", metavar="DATE", help="reply until (default: a month after arrival)")
    add.add_argument("--received", default="", metavar="DATE", help="date of arrival (default: today)")
    add.add_argument("--basis", default="art17", metavar="CODE", help="legal basis (default: art17)")
    add.add_argument("--checked", default="", metavar="CODE", help="how the requester was verified, as a code")
    add.add_argument(
        "--model",
        default="",
        metavar="M",
        help="model that is to forget (first call, or to change it before the first batch)",
    )
    add.add_argument("--data", default="", metavar="D", help="data that the model was trained on, as far as at hand")
    add.add_argument("--benchmark", default="", metavar="NAME", help="layout of the data; default: recognise it")
    add.add_argument("--gold", default="", metavar="M", help="model that never saw the people asked for")
    add.add_argument("--yes", action="store_true", help="approve the rows at once")
    approve = action_("approve", "approve the rows of requests as their tables are now", many="or --all")
    approve.add_argument("--all", action="store_true", help="all that the model knows and that wait")
    run = action_(
        "run", "unlearn approved requests, check everybody, attack, write receipts", many="default: all approved ones"
    )
    run.add_argument("--one-by-one", action="store_true", help="a batch per request instead of one for all")
    run.add_argument("--seed", type=int, default=0, metavar="S", help="start of every random stream (default: 0)")
    action_("list", "list the requests, by due date", reads=True)
    action_("show", "show the entries of a request", one=True, reads=True)
    extend = action_("extend", "put the reply off by two months", one=True)
    extend.add_argument("--reason", required=True, metavar="CODE", help="complex or many_requests")
    close = action_("close", "end a request with a decision", one=True)
    close.add_argument("--decision", default="", metavar="D", help="default: what was measured; or refused, withdrawn")
    close.add_argument("--reason", default="", metavar="CODE", help="default: done; a refusal needs its ground")
    purge = action_("purge", "remove names, rows and pictures of closed requests", many="default: all closed ones")
    purge.add_argument("--yes", action="store_true", help="remove; without it files are only listed")
    action_("verify", "check the ledger entry by entry", reads=True)
    export = action_("export", "write the ledger as JSON lines", reads=True)
    export.add_argument("--jsonl", required=True, metavar="FILE", help="file to write")


def action(options: argparse.Namespace) -> int:
    """Run the action and return its exit code."""
    handlers = {
        "add": _add,
        "approve": _approve,
        "run": _run,
        "list": _list,
        "show": _show,
        "extend": _extend,
        "close": _close,
        "purge": _purge,
        "verify": _verify,
        "export": _export,
    }
    return handlers[options.action](options)


def _today() -> datetime:
    return datetime.now(UTC)


def _add(options: argparse.Namespace) -> int:
    from unsee.workflows.requests import intake, keys
    from unsee.workflows.requests.project import Project, changed_settings, day

    private: dict[str, list[str]] = {}
    for pair in options.private:
        fact, equals, text = pair.partition("=")
        if not (equals and fact.strip() and text.strip()):
            raise UserError(f"--private is FACT=TEXT, e.g. city=Lisbon; got {pair!r}.")
        private.setdefault(fact.strip(), []).append(text.strip())
    project = Project(folder=Path(options.project))
    settings = {name: getattr(options, name) for name in ("model", "data", "benchmark", "gold")}
    intake_record = intake.add(
        project,
        options.name,
        options.image,
        attributes=options.attribute,
        private=private,
        entity=options.entity,
        due=day(options.due, "--due") if options.due else None,
        received=day(options.received, "--received") if options.received else None,
        basis=options.basis,
        checked=options.checked,
        operator=options.operator,
        changes=changed_settings(project, settings),
    )
    print_remark(intake_record)
    if not keys.can_sign():
        print_remark(
            f"{keys.MISSING} Install it before the first `unsee request run`; receipts cannot be signed later."
        )
    if options.yes and intake_record.found:
        intake.approve(project, intake_record.request.id, operator=options.operator)
    say(intake_record.request.id)
    return OK


def _project(options: argparse.Namespace):  # type: ignore[no-untyped-def] # noqa: ANN202 - imported lazily
    from unsee.workflows.requests.project import Project

    project = Project(folder=Path(options.project))
    project.settings()  # raises if there is no project
    return project


def _approve(options: argparse.Namespace) -> int:
    from unsee.workflows.requests import intake

    project = _project(options)
    states = project.ledger.states()
    waiting_ids = [
        name for name, state in states.items() if state.status == "asked" and state.last("asked").get("found")
    ]
    if not options.requests and not options.all:
        raise UserError(f"Which request? Give ids or --all; waiting: {', '.join(waiting_ids) or 'none'}.")
    if options.requests and options.all:
        raise UserError("Give ids or --all, not both.")
    for name in dict.fromkeys(options.requests or waiting_ids):
        intake.approve(project, name, operator=options.operator)
        say(name)
    return OK


def _run(options: argparse.Namespace) -> int:
    from unsee.workflows.requests.batch import run

    results = run(
        _project(options),
        options.requests,
        one_by_one=options.one_by_one,
        operator=options.operator,
        seed=options.seed,
    )
    say("\n".join(map(str, results)))
    return OK if all(result.fulfilled for result in results) else UNFORGOTTEN


def _list(options: argparse.Namespace) -> int:
    from unsee.workflows.requests import manage

    rows = manage.table(_project(options), _today().date())
    say(manage.column_text(rows) if len(rows) > 1 else "no requests")
    return OK


def _show(options: argparse.Namespace) -> int:
    from unsee.workflows.requests import manage

    project = _project(options)
    say(manage.story(project.ledger.state(options.request)))
    if project.request(options.request) is not None:
        say(f"rows: {project.place(options.request) / 'data.jsonl'}")
    return OK


def _extend(options: argparse.Namespace) -> int:
    from unsee.workflows.requests import manage

    entry = manage.extend(
        _project(options), options.request, options.reason, today=_today().date(), operator=options.operator
    )
    say(f"{options.request} is due on {entry.content['due']}")
    return OK


def _close(options: argparse.Namespace) -> int:
    from unsee.workflows.requests import manage

    project = _project(options)
    decision = options.decision or manage.decision_of(project.ledger.state(options.request))
    reason = options.reason or _REASONS.get(decision, "done")
    manage.close(project, options.request, decision, reason, operator=options.operator)
    say(f"{options.request} closed: {decision}")
    return OK


def _purge(options: argparse.Namespace) -> int:
    from unsee.workflows.requests import manage

    say(manage.purge(_project(options), options.requests, apply=options.yes, operator=options.operator))
    return OK


def _verify(options: argparse.Namespace) -> int:
    from unsee.cli.commands._shared import FAILED
    from unsee.workflows.requests import manage

    project = _project(options)
    faults = manage.faults(project)
    say("\n".join(faults) if faults else f"{len(project.ledger.entries())} entries, none was changed or is missing")
    return FAILED if faults else OK


def _export(options: argparse.Namespace) -> int:
    from unsee.workflows.requests import manage

    say(f"{manage.export(_project(options), Path(options.jsonl))} entries in {options.jsonl}")
    return OK
