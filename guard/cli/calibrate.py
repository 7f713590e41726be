"""`guard calibrate`: make a profile of a route's honest traffic from recordings."""

from __future__ import annotations

import argparse
import os
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from guard.cli.common import Exit, fail, one_thread

if TYPE_CHECKING:
    from guard.calibrate.findings import Findings, Settings
    from guard.calibrate.poison import Suspect
    from guard.calibrate.read import Logs
    from guard.detectors.profile import Profile
    from guard.detectors.sketch import Sketch

HELP = "make a profile of a route's honest traffic from recordings"
EPILOG = """examples:
  guard serve --policy observe --api mlflow --upstream http://127.0.0.1:5000 --record traffic   # days of honest traffic
  guard calibrate traffic --output digits.profile.json
  guard calibrate traffic --output digits.profile.json --image 8x8x1      # queries are images: other copies are made
  guard calibrate a/traffic b/traffic --route loans --output loans.profile.json --curves loans.svg
  guard calibrate traffic --output digits.profile.json --leave-out        # without the clients that look like thieves

then, in the policy's route:  profile: digits.profile.json

A profile knows what honest clients of this route look like. With one, the detectors of unusual queries come on, and
levels of false alarms are calibrated where enough clients stand behind them: 200 for 1 in 100, 2,000 for 1 in 1,000.
Whoever is in the recordings counts as honest: clients that the structure of their queries gives away are listed, and
nothing is written until --leave-out or --keep says what becomes of them. Thieves whose queries look like anybody's are
not seen, so record where you know your clients. The profile holds up to 512 queries and 2,000 answers: it is written
for its owner alone (0600), as recordings are.

exit codes: 0 written, 1 clients look like thieves, 2 usage or recordings that no profile can be made of
"""
_SHOWN = 20


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("recordings", nargs="+", metavar="DIR", help="directories of recordings, or single files")
    parser.add_argument("--output", required=True, metavar="FILE", help="the profile, such as digits.profile.json")
    parser.add_argument("--route", metavar="NAME", help="whose queries, where there are several routes")
    parser.add_argument("--image", metavar="HxWxC", help="queries are images of this height, width and channels")
    poisoned = parser.add_mutually_exclusive_group()
    poisoned.add_argument("--leave-out", action="store_true", help="leave clients out that look like thieves")
    poisoned.add_argument("--keep", action="store_true", help="count them as honest: you know who they are")
    parser.add_argument("--seed", type=int, default=0, help="of every random draw (default: %(default)s)")
    parser.add_argument("--curves", metavar="FILE.svg", help="draw the evidence against held-out clients")
    parser.add_argument("--force", action="store_true", help="overwrite files that exist")


def run(args: argparse.Namespace) -> int:
    """Make a profile."""
    one_thread()
    output, curves = Path(args.output), Path(args.curves) if args.curves else None
    if args.seed < 0:
        return fail("--seed must be 0 or more")
    if curves is not None and curves.suffix.lower() != ".svg":
        return fail(f"--curves draws SVG, not {curves.suffix or curves.name}", hint=f"--curves {curves.stem}.svg")
    for path in (output, curves):
        if path is not None and path.exists() and not args.force:
            return fail(f"{path} exists", hint="--force overwrites it")
        if path is not None and not path.parent.is_dir():
            return fail(f"there is no directory {path.parent}")
    return _calibrate(args, output, curves)


def _calibrate(args: argparse.Namespace, output: Path, curves: Path | None) -> int:
    from guard.calibrate.findings import PoisonedLogs
    from guard.calibrate.read import CalibrationError, read_logs
    from guard.detectors.profile import ProfileError, encode

    try:
        logs = read_logs([Path(path) for path in args.recordings], args.route)
        sketch, image = image_of(logs.sketch, args.image)
        profile, findings = _make(args, logs, sketch, image=image)
        data = encode(profile)
    except PoisonedLogs as error:
        return _refuse(error.found)
    except CalibrationError as error:
        return fail(str(error))
    except ProfileError as error:
        return fail(f"the profile {error}", code=Exit.INTERNAL)
    except OSError as error:
        return fail(f"recordings cannot be read: {error}", code=Exit.USAGE)
    try:
        _write(output, data)
        if curves is not None:
            from guard.cli.calibrate_picture import draw

            _write(curves, draw(profile.name, findings).encode())
    except OSError as error:
        return fail(f"{error.filename} cannot be written: {error.strerror}", code=Exit.UNREACHABLE)
    _tell(profile, findings, logs, output)
    return Exit.OK


def image_of(sketch: Sketch, text: str | None) -> tuple[Sketch, bool]:
    """Return the sketch with an image's shape, where that makes the same numbers, and whether queries are images.

    Raises:
        CalibrationError: the shape does not fit.
    """
    from guard.calibrate.read import CalibrationError

    if text is None:
        return sketch, sketch.kind == "image"
    if (found := re.fullmatch(r"(\d{1,5})x(\d{1,5})x(\d{1,4})", text)) is None:
        raise CalibrationError(f"--image {text}: write height, width and channels as 8x8x1")
    height, width, channels = (int(word) for word in found.groups())
    if sketch.kind not in ("vector", "image") or height * width * channels != sketch.size:
        size = f"{sketch.size} features" if sketch.size else sketch.kind
        raise CalibrationError(f"--image {text} does not fit the recordings: their queries are {size}")
    if height <= 8 and width <= 8 and channels == 1:
        sketch = sketch.model_copy(update={"kind": "image", "shape": (height, width, channels)})
    return sketch, True


def _make(args: argparse.Namespace, logs: Logs, sketch: Sketch, *, image: bool) -> tuple[Profile, Findings]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from guard.calibrate.findings import Settings
    from guard.calibrate.fit import make_profile

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(20), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("reading", total=1.0)
        settings: Settings = Settings(
            seed=args.seed,
            image=image,
            poisoned="leave_out" if args.leave_out else "keep" if args.keep else "refuse",
            made=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            progress=lambda what, share: progress.update(bar, description=what, completed=share),
        )
        return make_profile(logs.route, sketch, logs.clients, settings)


def _refuse(found: tuple[Suspect, ...]) -> int:
    for line in _suspects(found):
        print(line)
    what = f"{len(found)} client{'s look' if len(found) > 1 else ' looks'} like a thief; no profile was made"
    return fail(what, "--leave-out makes it without them; --keep, if you know that they are honest", Exit.FAILED)


def _suspects(found: tuple[Suspect, ...]) -> list[str]:
    lines = [
        f"  {suspect.client}  {suspect.queries:>7,} queries  evidence 10^{suspect.log10_evidence:.1f} to "
        f"{suspect.judge}: {', '.join(suspect.signals) or 'many signals, a little each'}"
        for suspect in found[:_SHOWN]
    ]
    return [*lines, f"  and {len(found) - _SHOWN} more"] if len(found) > _SHOWN else lines


def _write(path: Path, data: bytes) -> None:
    """Write a file for its owner alone, whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def _tell(profile: Profile, findings: Findings, logs: Logs, output: Path) -> None:
    fit, null, held = findings.parts
    low, first, middle, third, high = findings.lengths
    print(f"{output}: profile of route {profile.name}")
    print(
        f"clients: {len(logs.clients) - findings.short - profile.left_out:,} used, {profile.queries:,} queries; ",
        end="",
    )
    print(f"a client asked {middle:,} (half of them {first:,} to {third:,}, nine in ten {low:,} to {high:,})")
    usual = f"{null:,} and {profile.augmented:,} shifted copies for what is usual"
    print(f"  {fit:,} for the detectors, {usual}, {held:,} held out")
    if findings.short:
        print(f"  not used: {findings.short:,} clients of fewer than 16 queries")
    if findings.suspects:
        print(f"{'left out' if findings.left_out else 'kept'}, though they look like thieves: {len(findings.suspects)}")
        for line in _suspects(findings.suspects):
            print(line)
    print("levels:")
    for tier, level in findings.levels:
        print(f"  {tier + ':':<11}{level}, threshold 10^{level.threshold / 2.302585:.2f}")
    print(f"detectors on: {', '.join(findings.on)}")
    for kind, why in findings.off:
        print(f"  off: {kind}: {why}")
    print(
        f"information meter: {len(profile.held_out):,} held-out queries; calibration answers: {len(profile.answers):,}"
    )
    for line in _doubts(profile, logs):
        print(f"warning: {line}", file=sys.stderr)


def _doubts(profile: Profile, logs: Logs) -> list[str]:
    doubts: list[str] = []
    if logs.cut:
        doubts.append(f"the last record of {', '.join(logs.cut[:5])} was cut off, and was left out")
    if logs.unusable:
        doubts.append(f"{logs.unusable:,} records without a usable sketch were left out")
    if logs.secrets > 1:
        doubts.append(
            f"recorded under {logs.secrets} secrets: a client that came under two counts as two; "
            "give guard serve a secret of your own (GUARD_SECRET)"
        )
    if not len(profile.answers):
        doubts.append("no whole distributions were recorded: `step: auto` and the like stay uncalibrated")
    return doubts
