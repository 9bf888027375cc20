"""What a check can find: the table of error codes, one finding, the verdict.

How a finding is worded, and that its text is inert. Which file and rule is passed in.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping

from pydantic import computed_field

from fairspec_bench.schemas.base import Record, Sha256
from fairspec_bench.schemas.submission import Verified

MAX_FINDINGS = 500
"""More are counted, not kept: a broken file breaks every line alike."""

CODES: Mapping[str, tuple[str, str]] = {
    "F001": ("not a folder, or a file in it cannot be read", "Give the folder of one submission, readable"),
    "F002": ("a link, or something that is no plain file", "Put the file itself there"),
    "F003": ("a name that is unsafe or may differ between systems", "Use ASCII letters, digits, . _ and - only"),
    "F004": ("two names that are one on other systems", "Rename or remove one of the two"),
    "F005": ("a file that belongs to no submission", "Remove it"),
    "F006": ("a file is missing", "Put it there; `fairspec submit pack` then lists it"),
    "F007": ("too large, too deep or too many files", "Submit only what the track asks for"),
    "F008": ("damaged gzip, or more of it than is allowed", "Compress the file once, with plain gzip"),
    "F009": ("the same file plain and gzipped", "Keep one of the two"),
    "M001": ("a manifest line that is none", "Write the manifest with `fairspec submit pack`"),
    "M002": ("a file that the manifest does not list", "Write the manifest with `fairspec submit pack`"),
    "M003": ("the manifest lists a file that is not there", "Write the manifest with `fairspec submit pack`"),
    "M004": ("a file has another hash than the manifest says", "Restore the file, or pack again"),
    "M005": ("the manifest lists a file twice", "Write the manifest with `fairspec submit pack`"),
    "J001": ("not UTF-8, or with a byte order mark", "Submit the file as the run wrote it"),
    "J002": ("not JSON", "Submit the file as the run wrote it"),
    "J003": ("nested too deep", "Submit the file as the run wrote it"),
    "J004": ("a key comes twice", "Submit the file as the run wrote it"),
    "J005": ("a line too long, or the last one torn", "Submit the file as the run wrote it"),
    "J006": ("a number that is not finite or has too many digits", "Submit the file as the run wrote it"),
    "J007": ("a field of the wrong type, missing or unknown", "Submit the file as the run wrote it"),
    "S001": ("submission.toml is not TOML", "Correct it, or start with `fairspec submit new`"),
    "S002": ("a field of submission.toml is missing, unknown or wrong", "Correct the field (SUBMITTING.md)"),
    "S003": ("text that is not plain: markup, script, control or direction marks", "Write plain text in NFC"),
    "S004": ("an address that is not https", "Give one https:// address"),
    "S005": ("a licence without an SPDX name", "Give an SPDX identifier, such as Apache-2.0"),
    "S006": ("no such track", "Name a track of `list_tracks`"),
    "S007": ("the track takes no submissions: something in it is not fixed yet", "Wait until the track is pinned"),
    "S009": ("a drafter that is not pinned", "Give the 40-hex commit or `weights-sha256:` and 64 hex, and file hashes"),
    "S010": ("the drafter is not the one of the run", "Describe the drafter that was run"),
    "S011": ("drafter/config.json is not the file that drafter.files names", "Copy the published one there"),
    "S012": ("a name that shows nothing, or looks like another", "Write a name in one alphabet, on one line"),
    "W001": ("pickled weights: loading them runs code", "Publish safetensors"),
    "W002": ("a drafter that needs code of its own", "Publish a drafter that loads without trust_remote_code"),
    "C001": ("the run was not made with the track's setting", "Run again with the track's settings"),
    "C002": ("another suite, or other data or prompts", "Run the track's suites on its data"),
    "C003": ("the run does not have exactly the track's prompts, each once", "Run the whole track, in one run"),
    "C004": ("a prompt belongs to another cluster", "Submit run.json as the run wrote it"),
    "C005": ("a step is missing, comes twice or names no environment", "Submit a finished run's files unchanged"),
    "L001": ("a prompt has no line", "Finish the run and submit all its lines"),
    "L002": ("a prompt has two lines", "Submit the file as the run wrote it"),
    "L003": ("a line of a prompt or chunk that does not belong there", "Submit the file as the run wrote it"),
    "L004": ("a line made from another prompt", "Run again on the track's prompts"),
    "L005": ("not as many lines as were finished", "Submit the file as the run wrote it"),
    "T001": ("an id outside the vocabulary", "Run with the track's tokenizer"),
    "T002": ("the reference does not end as it says", "Submit the references as the run wrote it"),
    "T003": ("not the verifier's output", "Score the drafter on the track's reference texts"),
    "T004": ("the verifier's answer is graded otherwise than in the reference", "Submit the run as it is"),
    "T005": ("the verifier diverges from the reference beyond rounding", "Run with the track's verifier and dtype"),
    "T006": ("a divergence from float32 that cannot be", "Submit the divergences as the run wrote them"),
    "R001": ("not as many contexts or drafts as the reference has", "Submit the replay as the run wrote it"),
    "R002": ("a draft outside the vocabulary", "Run with the track's tokenizer"),
    "R003": ("alpha is not what the drafts give", "Submit the replay as the run wrote it"),
    "R004": ("a sum that cannot be", "Submit the replay as the run wrote it"),
    "R005": ("overlap and KL contradict each other (Pinsker)", "Submit the replay as the run wrote it"),
    "R006": ("the verifier's entropy is not the reference's", "Run with the track's verifier and dtype"),
    "R007": ("a proper q, or none, where the drafter has it otherwise", "Submit the replay as the run wrote it"),
    "R008": ("beta does not fit the sampling parameters", "Submit the replay as the run wrote it"),
    "R009": ("overlap and KL leave no room for the drafts that miss", "Submit the replay as the run wrote it"),
    "B001": ("a race without every prompt in every mode and round, in some order", "Run the race to its end"),
    "B002": ("a timing of another output", "Race on the track's reference texts"),
    "B003": ("a block that cannot be", "Submit the timings as the run wrote them"),
    "B004": ("the blocks are not what the replay's drafts give", "Submit replay and timings of the same drafter"),
    "B005": ("times that cannot be", "Submit the timings as the run wrote them"),
    "B006": ("raced on another class of hardware than the track's", "Race there, or submit without a race"),
    "B007": ("a race that beats what its blocks allow", "Race on an idle machine, submit as the run wrote it"),
    "P001": ("report.json is not what the lines give", "Make it again with `fairspec report`"),
    "X001": ("the checker itself failed; nothing is accepted", "Report this to the maintainers with the submission"),
}  # fmt: skip
"""Code → what is wrong, what to do."""

_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = 80


def show(value: object) -> str:
    """A value in at most about 80 characters of printable ASCII, whatever it holds."""
    text = value if isinstance(value, str) else _repr.repr(value)
    clean = "".join(each if " " <= each <= "~" else ascii(each)[1:-1] for each in text[:80])
    return clean[:80] + ("..." if len(clean) > 80 or len(text) > 80 else "")


class Finding(Record):
    """One fault: where, what was there, what should be. All text is printable ASCII."""

    code: str
    file: str
    line: int | None
    field: str
    got: str
    expected: str
    fix: str

    def __str__(self) -> str:
        where = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{self.code} {where} {self.field}: got {self.got}, expected {self.expected}. Fix: {self.fix}."


class Verdict(Record):
    """All that a check found. Only a verdict without findings has something `verified`: recomputed from the lines.

    `manifest_sha256` is the hash of the manifest's bytes, by which a checked submission is known; `omitted` counts
    findings beyond the first 500.
    """

    findings: tuple[Finding, ...]
    omitted: int
    track: str | None
    manifest_sha256: Sha256 | None
    verified: Verified | None

    @property
    def ok(self) -> bool:
        return not self.findings

    @computed_field  # type: ignore[prop-decorator]  # mypy knows no decorated property
    @property
    def flags(self) -> tuple[str, ...]:
        """What puts a task of an accepted submission in doubt; no fault."""
        if self.verified is None:
            return ()
        tasks = (task for suite in self.verified.report.suites for task in suite.tasks)
        return tuple(f"{task.task}: {flag}" for task in tasks for flag in task.flags)


class Findings:
    """Collects findings in the order they are found."""

    def __init__(self) -> None:
        self.kept: list[Finding] = []
        self.omitted = 0

    def __bool__(self) -> bool:
        return bool(self.kept)

    def add(self, code: str, file: str, field: str, got: object, expected: object, *, line: int | None = None) -> None:
        """Note a fault. `KeyError` for a code that the table does not have."""
        fix = CODES[code][1]
        if len(self.kept) == MAX_FINDINGS:
            self.omitted += 1
            return
        self.kept.append(
            Finding(
                code=code,
                file=show(file),
                line=line,
                field=show(field),
                got=show(got),
                expected=show(expected),
                fix=fix,
            )
        )
