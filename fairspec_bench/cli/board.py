"""`fairspec submit`, `fairspec site` and `fairspec track`: the commands of the board. Parse, call the API, print.

On a terminal `submit new` asks for every field that no option gave; elsewhere it leaves blanks.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from fairspec_bench.api.submissions import AUDIT, DRAFTER_ARGS, MACHINE, RACES
from fairspec_bench.cli.grouped_help import GroupedCommand
from fairspec_bench.cli.parameters import declared
from fairspec_bench.cli.progress import of_run, progress, say, show_rich, silence

submit_app = typer.Typer(help="Make, score, check, audit or pack a submission.", rich_markup_mode=None)
site_app = typer.Typer(help="Build or serve the static board.", rich_markup_mode=None)

Folder = Annotated[Path, typer.Argument(help="submissions/SLUG.")]
Drafter = Annotated[
    str | None, typer.Option(help="Where the drafter lies here. Default: under the name the submission gives it.")
]
Verifier = Annotated[str | None, typer.Option(help="Where the track's verifier lies here. Default: its own name.")]


# --------------------------------------------------------------------------- submissions


@submit_app.command("new")
def submit_new(
    folder: Annotated[Path, typer.Argument(help="submissions/SLUG, to be made.")],
    track: Annotated[str, typer.Option(help="The track; `fairspec track` lists them.")] = "embedded",
    drafter: Annotated[
        str | None, typer.Option(help="The drafter to be scored: folder, Hub id, embedded:drafter, lookup.")
    ] = None,
    run: Annotated[Path | None, typer.Option(help="Instead of --drafter: a finished run folder of the track.")] = None,
    files: Annotated[
        list[Path] | None, typer.Option("--file", help="With --run: a published file of the drafter; repeatable.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="What the board calls it.")] = None,
    description: Annotated[str | None, typer.Option(help="Plain text.")] = None,
    author: Annotated[list[str] | None, typer.Option(help="Repeatable.")] = None,
    contact: Annotated[str | None, typer.Option(help="An address for questions.")] = None,
    licence: Annotated[str | None, typer.Option(help="Of the drafter, SPDX: Apache-2.0.")] = None,
    url: Annotated[str | None, typer.Option(help="https://…")] = None,
    training_data: Annotated[
        str | None, typer.Option("--training_data", help="What the drafter was trained on.")
    ] = None,
    trained_on_suite_data: Annotated[
        bool, typer.Option("--trained_on_suite_data", help="Whether any prompt or answer of the suites was among it.")
    ] = False,
    fine_tuned_from: Annotated[
        str | None, typer.Option("--fine_tuned_from", help="Slug of the submission whose drafter this one was made of.")
    ] = None,
    method: Annotated[str | None, typer.Option(help="How it was fine-tuned.")] = None,
) -> None:
    """Begin a submission. Then: fairspec submit score (of a --run: fill the blanks, fairspec submit pack)."""
    from fairspec_bench.api.submissions import submit_new

    interactive = sys.stdin.isatty() and sys.stdout.isatty()
    fields: dict[str, Any] = {
        "name": name,
        "description": description,
        "contact": contact,
        "licence": licence,
        "url": url,
        "training_data": training_data,
        "authors": tuple(author or ()) or None,
    }
    if interactive:
        for field, value in fields.items():
            if value is None:
                answer = typer.prompt(f"{field.replace('_', ' ')}{', comma-separated' * (field == 'authors')}")
                fields[field] = tuple(map(str.strip, answer.split(","))) if field == "authors" else answer
    given = {field: value for field, value in fields.items() if value is not None}
    written = submit_new(
        folder,
        track,
        drafter,
        run,
        files={path.name: path for path in files or ()} or None,
        trained_on_suite_data=trained_on_suite_data,
        fine_tuned_from=fine_tuned_from,
        method=method,
        **given,
    )
    say(f"written: {written}")
    if len(given) < len(fields):
        say("fill its blanks (...) before the check")


@submit_app.command("score", cls=GroupedCommand)
@declared(*MACHINE, *RACES, *DRAFTER_ARGS)
def submit_score(options: dict[str, Any], folder: Folder, drafter: Drafter = None, verifier: Verifier = None) -> None:
    """Run a submission's drafter on its track's references, and pack it. Resumable: rerun the same command."""
    from fairspec_bench.api.reports import render
    from fairspec_bench.api.submissions import submit_score as score

    with progress() as show:
        report = score(folder, drafter, verifier=verifier, **options, on_progress=of_run(show))
    show_rich(render(report))
    say(f"packed: {folder}", f"next: fairspec submit check {folder}")


@submit_app.command("check")
def submit_check(
    folder: Annotated[Path | None, typer.Argument(help="submissions/SLUG.")] = None,
    changed_from: Annotated[
        str | None,
        typer.Option("--changed-from", help="Instead: the one folder that this git branch changes since REF."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The verdict as JSON.")] = False,
) -> None:
    """Recompute everything a submission claims. All faults at once; needs no GPU and no network."""
    from fairspec_bench.api import submissions

    if (folder is None) == (changed_from is None):
        raise typer.BadParameter("give either a folder or --changed-from REF.")
    chosen = folder or submissions.changed_submission(changed_from or "")
    verdict = submissions.submit_check(chosen)
    if as_json:
        say(verdict.model_dump_json(indent=1, exclude={"verified"}))
    else:
        count = len(verdict.findings) + verdict.omitted
        refused = f"refused: {count} fault{'s' * (count != 1)}"
        say(*map(str, verdict.findings), *(f"note: {flag}" for flag in verdict.flags))
        say(f"{chosen}: {'accepted' if verdict.ok else refused}")
    if not verdict.ok:
        raise typer.Exit(1)


@submit_app.command("audit", cls=GroupedCommand)
@declared(*AUDIT, *MACHINE)
def submit_audit(options: dict[str, Any], folder: Folder, drafter: Drafter = None, verifier: Verifier = None) -> None:
    """Run a submitted drafter again. For maintainers: on a random sample and on prompts it has not seen."""
    from fairspec_bench.api.submissions import submit_audit as audit

    silence()
    found = audit(folder, drafter, verifier=verifier, **options, say=lambda line: typer.echo(line, err=True))
    for task in found.sample:
        say(
            f"{task.task}: {task.same_drafts:.2%} of {task.contexts} drafts the same, acceptance claimed "
            f"{task.acceptance_claimed:.3f}, found {task.acceptance_found:.3f}"
        )
    over_all = found.fresh_over_all
    if over_all.value is not None:
        bounds = "" if over_all.low is None else f" [{over_all.low:+.3f}, {over_all.high:+.3f}]"
        say(f"acceptance, public − fresh: {over_all.value:+.3f}{bounds}")
    for race in found.races:
        say(f"{race.task}: speed-up claimed {race.claimed:.2f}, found {race.found:.2f}")
    verdicts = (f"{name}: {getattr(found, name)}" for name in ("reproduced", "times", "generalises"))
    say(*verdicts, f"rule: {found.rule}")
    if not found.reproduced or False in (found.times, found.generalises):
        raise typer.Exit(1)


@submit_app.command("pack")
def submit_pack(folder: Folder) -> None:
    """Gzip a submission's run and write its manifest. Then: fairspec submit check."""
    from fairspec_bench.api.submissions import submit_pack as pack

    say(f"manifest: {pack(folder)}")


# --------------------------------------------------------------------------- tracks


def track(
    run: Annotated[Path | None, typer.Argument(help="A finished run that fixes a new track. Without: list.")] = None,
    name: Annotated[str | None, typer.Argument(help="Its name.")] = None,
    title: Annotated[str, typer.Option(help="In a few words.")] = "",
    about: Annotated[str, typer.Option(help="For whom, in a sentence or two.")] = "",
    baseline: Annotated[str | None, typer.Option(help="Slug of the submission others are shown against.")] = None,
) -> None:
    """List the tracks, or make one. For maintainers: settings and references are those of a finished run."""
    from fairspec_bench.api import submissions

    if run is None:
        for each in submissions.list_tracks():
            state = "archived" if each.archived else "open" if not each.open_fields else "not pinned yet"
            say(f"{each.name:<20}{len(each.tasks):>3} tasks  {state:<15}{each.title}")
            say(f"{'':<20}{each.verifier}, gamma {each.gamma}, {each.dtype}")
        return
    if not (name and title and about):
        raise typer.BadParameter("a new track needs RUN NAME --title … --about ….")
    silence()
    say(f"track: {submissions.new_track(run, name, title=title, about=about, baseline=baseline)}")


# --------------------------------------------------------------------------- the site


@site_app.command("build")
def site_build(
    runs: Annotated[list[Path] | None, typer.Argument(help="Run folders, shown beside the submissions.")] = None,
    submissions: Annotated[
        Path | None, typer.Option(help="Folder of submissions. Default: ./submissions, unless runs are named.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the site, replaced whole.")] = Path("site"),
    change: Annotated[
        list[str] | None, typer.Option(help="BEFORE,AFTER: two of the runs whose difference is shown; repeatable.")
    ] = None,
    base_url: Annotated[str, typer.Option(help="https address of the site, for links that others share.")] = "",
    repository: Annotated[str, typer.Option(help="https address of the code that the pages link to.")] = "",
) -> None:
    """Build the board. Every submission is checked first, unless the same bytes were checked before."""
    from fairspec_bench.api.board import build_board
    from fairspec_bench.api.reports import parse_change
    from fairspec_bench.api.submissions import SUBMISSIONS

    changes = [parse_change(text) for text in change or ()]
    chosen = submissions or (None if runs else SUBMISSIONS)
    page = build_board(out, chosen, runs or (), changes=changes, base_url=base_url, repository=repository)
    say(f"page: {page}")


@site_app.command("serve")
def site_serve(
    site: Annotated[Path, typer.Argument(help="A site made by `site build`.")] = Path("site"),
    port: Annotated[int, typer.Option(help="0: any free one.")] = 8000,
) -> None:
    """Serve a built site on this machine, until Ctrl-C."""
    from fairspec_bench.site.serve import serve

    with serve(site, port) as server:
        say(f"http://127.0.0.1:{server.server_port}/ (Ctrl-C ends)")
        server.serve_forever()
