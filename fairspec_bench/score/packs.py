"""Reference packs: a finished run's texts as a track keeps them, and a track's texts as a run takes them.

Knows run folders and a track's references. Knows no drafter.
"""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

from fairspec_bench.records import Answer, FairspecError, Replay, Sha256, Trace, lines_text
from fairspec_bench.score.folder import RunFolder
from fairspec_bench.suite.tracks import Reference


def references_of(run: Path) -> tuple[Reference, ...]:
    """The texts that a finished run was made on, by key. Raises `FairspecError` for a run that is not whole."""
    folder = RunFolder(run)
    if not folder.whole:
        raise FairspecError(f"{run}: {folder.progress}. Finish the run before it becomes a reference.")
    answers = {answer.key: answer for answer in folder.lines("answer", Answer)}
    replays = {replay.key: replay for replay in folder.lines("replay", Replay)}
    return tuple(
        Reference(
            key=trace.key,
            cluster=folder.config.clusters[trace.key],
            prompt_sha=trace.prompt_sha,
            ids=trace.ids,
            finish=trace.finish,
            verifier_entropy=replays[trace.key].verifier_entropy if trace.key in replays else None,
            answer=answers[trace.key],
        )
        for trace in sorted(folder.lines("trace", Trace), key=lambda trace: trace.key)
    )


def write_reference(run: Path, path: Path) -> Sha256:
    """Make a run's texts a track's reference pack at `path`; → the hash that the track's file must name."""
    text = lines_text(references_of(run)).encode()
    path.write_bytes(gzip.compress(text, 9, mtime=0))
    return hashlib.sha256(text).hexdigest()
