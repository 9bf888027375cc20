"""`fairspec submit`, `fairspec site` and `fairspec track`: the commands of the board. Parse, call the desk, print.

On a terminal `submit new` asks for what no option gave; elsewhere it leaves blanks.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from fairspec_bench.terminal import progress, say, show_rich, shown, silence

submit_app = typer.Typer(help="Submissions: make, score, check, audit, pack one.", rich_markup_mode=None)
site_app = typer.Typer(help="The static board.", rich_markup_mode=None)

Folder = Annotated[Path, typer.Argument(help="submissions/SLUG.")]
Drafter = Annotated[
    str | None, typer.Option(help="Where the drafter lies here. Default: under the name the submission gives it.")
]
Verifier = Annotated[str | None, typer.Option(help="Where the track's verifier lies here. Default: its own name.")]
Device = Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")]
BatchSize = Annotated[int, typer.Option("--batch_size", help="Rows decoded together.")]


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
    mended_from: Annotated[
        str | None, typer.Option("--mended_from", help="Slug of the submission whose drafter this one was made of.")
    ] = None,
    method: Annotated[str | None, typer.Option(help="How it was mended.")] = None,
) -> None:
    """Begin a submission. Then: fairspec submit score (of a --run: fill the blanks, fairspec submit pack)."""
    from fairspec_bench import desk

    asking = sys.stdin.isatty() and sys.stdout.isatty()
    told: dict[str, Any] = {
        "name": name,
        "description": description,
        "contact": contact,
        "licence": licence,
        "url": url,
        "training_data": training_data,
    }
    if asking:
        told = {
            field: typer.prompt(field.replace("_", " ")) if value is None else value for field, value in told.items()
        }
        author = author or [each.strip() for each in typer.prompt("authors, comma-separated").split(",")]
    given = {field: value for field, value in told.items() if value is not None}
    if author:
        given["authors"] = tuple(author)
    if files:
        given["files"] = {path.name: path for path in files}
    written = desk.submit_new(
        folder,
        track,
        drafter,
        run,
        trained_on_suite_data=trained_on_suite_data,
        mended_from=mended_from,
        method=method,
        **given,
    )
    say(f"written: {written}")
    if not asking and len(given) < len(told) + 1:
        say("fill its blanks (...) before the check")


@submit_app.command("score")
def submit_score(
    folder: Folder,
    drafter: Drafter = None,
    verifier: Verifier = None,
    device: Device = "cpu",
    batch_size: BatchSize = 8,
    race_prompts: Annotated[
        int, typer.Option("--race_prompts", help="Prompts per language whose wall-clock is taken.")
    ] = 50,
    race_rounds: Annotated[int, typer.Option("--race_rounds", help="Rounds of each race; 0 for no races.")] = 5,
    race_width: Annotated[
        float | None,
        typer.Option(
            "--race_width",
            help="A language's race ends once its speed-up is known to ± this share of itself; 0: with its prompts. "
            "Default: 0.03.",
            show_default=False,
        ),
    ] = None,
    race_budget: Annotated[
        float | None, typer.Option("--race_budget", help="Or once so many seconds of a language are timed.")
    ] = None,
    drafter_args: Annotated[str | None, typer.Option("--drafter_args", help="k=v,k=v for the drafter.")] = None,
) -> None:
    """Run a submission's drafter on its track's texts, and seal it. Stopped, the same command goes on."""
    from fairspec_bench import desk, face

    with progress() as show:
        report = desk.submit_score(
            folder,
            drafter,
            verifier=verifier,
            device=device,
            batch_size=batch_size,
            race_prompts=race_prompts,
            race_rounds=race_rounds,
            race_width=race_width,
            race_budget=race_budget,
            drafter_args=face.parse_options(drafter_args),
            watch=shown(show),
        )
    show_rich(face.render(report))
    say(f"sealed: {folder}", f"next: fairspec submit check {folder}")


@submit_app.command("check")
def submit_check(
    folder: Annotated[Path | None, typer.Argument(help="submissions/SLUG.")] = None,
    changed_from: Annotated[
        str | None,
        typer.Option("--changed-from", help="Instead: the one folder that this git branch changes since REF."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The verdict as JSON.")] = False,
) -> None:
    """Recompute everything a submission claims; all faults at once. Needs no GPU and no network."""
    from fairspec_bench import desk

    if (folder is None) == (changed_from is None):
        raise typer.BadParameter("give either a folder or --changed-from REF.")
    chosen = folder or desk.changed_submission(changed_from or "")
    verdict = desk.submit_check(chosen)
    if as_json:
        say(verdict.model_dump_json(indent=1, exclude={"verified"}))
    else:
        count = len(verdict.findings) + verdict.omitted
        say(*map(str, verdict.findings), f"{chosen}: accepted" if verdict.ok else f"{chosen}: refused: {count} faults")
    if not verdict.ok:
        raise typer.Exit(1)


@submit_app.command("audit")
def submit_audit(
    folder: Folder,
    auditor: Annotated[str, typer.Option(help="Who audits; the board says it.")],
    drafter: Drafter = None,
    verifier: Verifier = None,
    sample: Annotated[int, typer.Option(help="Prompts of each language that are scored again.")] = 5,
    fresh: Annotated[int, typer.Option(help="Unseen prompts of each language; 0 for none.")] = 10,
    private: Annotated[
        Path | None, typer.Option(help="Folder of <language>.txt, a question a line, that no submitter has seen.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of the sample. Default: drawn now.")] = None,
    device: Device = "cpu",
    batch_size: BatchSize = 8,
) -> None:
    """For maintainers: run a submitted drafter again, on a random sample and on prompts it has not seen."""
    from fairspec_bench import desk

    silence()
    found = desk.submit_audit(
        folder,
        drafter,
        verifier=verifier,
        auditor=auditor,
        sample=sample,
        fresh=fresh,
        seed=seed,
        private=private,
        device=device,
        batch_size=batch_size,
        say=lambda line: typer.echo(line, err=True),
    )
    for task in found.sample:
        say(
            f"{task.task}: {task.same_drafts:.2%} of {task.contexts} drafts the same, acceptance claimed "
            f"{task.acceptance_claimed:.3f}, found {task.acceptance_found:.3f}"
        )
    over_all = found.fresh_over_all
    if over_all.value is not None:
        bounds = "" if over_all.low is None else f" [{over_all.low:+.3f}, {over_all.high:+.3f}]"
        say(f"acceptance, public − fresh: {over_all.value:+.3f}{bounds}")
    say(f"reproduced: {found.reproduced}", f"generalises: {found.generalises}", f"rule: {found.rule}")
    if not found.reproduced or found.generalises is False:
        raise typer.Exit(1)


@submit_app.command("pack")
def submit_pack(folder: Folder) -> None:
    """Gzip a submission's run and write its manifest. Then: fairspec submit check."""
    from fairspec_bench import desk

    say(f"manifest: {desk.submit_pack(folder)}")


# --------------------------------------------------------------------------- tracks


def track(
    run: Annotated[Path | None, typer.Argument(help="A finished run that fixes a new track. Without: list.")] = None,
    name: Annotated[str | None, typer.Argument(help="Its name.")] = None,
    title: Annotated[str, typer.Option(help="In a few words.")] = "",
    about: Annotated[str, typer.Option(help="For whom, in a sentence or two.")] = "",
    baseline: Annotated[str | None, typer.Option(help="Slug of the submission others are shown against.")] = None,
) -> None:
    """The tracks; or, for maintainers, a new one: its settings and texts are those of a finished run."""
    from fairspec_bench import desk

    if run is None:
        for each in desk.list_tracks():
            state = "archived" if each.archived else "open" if not each.open_fields else "not pinned yet"
            say(f"{each.name:<20}{len(each.tasks):>3} tasks  {state:<15}{each.title}")
            say(f"{'':<20}{each.verifier}, gamma {each.gamma}, {each.dtype}")
        return
    if not (name and title and about):
        raise typer.BadParameter("a new track needs RUN NAME --title … --about ….")
    silence()
    say(f"track: {desk.new_track(run, name, title=title, about=about, baseline=baseline)}")


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
) -> None:
    """Publish the board: every submission is checked first; what was checked before is not checked again."""
    from fairspec_bench import desk, face

    changes = [face.parse_change(text) for text in change or ()]
    chosen = submissions or (None if runs else desk.SUBMISSIONS)
    say(f"page: {desk.build_board(out, chosen, runs or (), changes=changes)}")


@site_app.command("serve")
def site_serve(
    site: Annotated[Path, typer.Argument(help="A site that `site build` made.")] = Path("site"),
    port: Annotated[int, typer.Option(help="0: any free one.")] = 8000,
) -> None:
    """Show a built site to this machine's browsers, until Ctrl-C."""
    from fairspec_bench.site.serve import serve

    with serve(site, port) as server:
        say(f"http://127.0.0.1:{server.server_port}/ (Ctrl-C ends)")
        server.serve_forever()
