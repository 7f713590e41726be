"""Writing reports: whole files, clear mistakes, and every format of every report."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import pytest

from guard.selftest.report import FORMATS, target, write
from tests.unit.selftest.report import sample


@pytest.mark.parametrize("case", sample.EVERY)
@pytest.mark.parametrize("name", FORMATS)
def test_every_format_writes_every_report_in_utf8(name: str, case: str, tmp_path: Path) -> None:
    path = tmp_path / "made" / f"report.{name}"

    write(sample.EVERY[case](), [(name, path)])

    text = path.read_bytes().decode("utf-8")
    assert text.endswith("\n")
    assert "secret" not in text
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("name", FORMATS)
def test_partial_report_says_so_at_the_top(name: str, tmp_path: Path) -> None:
    path, whole = tmp_path / "partial", tmp_path / "whole"

    write(sample.report(partial=True), [(name, path)])
    write(sample.report(), [(name, whole)])

    def top(file: Path) -> str:
        return "\n".join(file.read_text().partition("<body>")[2].splitlines() or file.read_text().splitlines()[:6])

    assert "partial" in top(path)[:2000].lower().replace('"partial": false', "")
    assert "interrupted" not in top(whole)


def test_names_of_the_policy_cannot_break_out(tmp_path: Path) -> None:
    for name in FORMATS:
        write(sample.hostile(), [(name, tmp_path / name)])

    for name in ("html", "junit"):
        text = (tmp_path / name).read_text()
        assert "<script" not in text
        assert "\x1b" not in text
        assert "\u202e" not in text
    markdown = (tmp_path / "markdown").read_text()
    assert not re.search(r"(?<!\\)<(?!!-- -->|/?details>|/?summary>)", markdown)
    assert "@team" not in markdown
    assert "http://" not in markdown


def test_unknown_format_hints_at_the_right_one_and_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="did you mean markdown"):
        write(sample.report(), [("json", tmp_path / "a"), ("markdwn", tmp_path / "b")])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "said"),
    [("jsn=x", "did you mean json"), ("json", "names no file"), ("html=", "no file"), ("json=.", "directory")],
)
def test_targets_that_cannot_be_are_told(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        target(text)


def test_target_keeps_equals_signs_in_paths() -> None:
    assert target("html=a=b.html") == ("html", Path("a=b.html"))


def test_file_is_replaced_whole_and_keeps_its_mode_and_its_link(tmp_path: Path) -> None:
    real, link = tmp_path / "real.json", tmp_path / "link.json"
    real.write_text("old")
    real.chmod(0o640)
    link.symlink_to(real)

    write(sample.passing(), [("json", link)])

    assert link.is_symlink()
    assert real.read_text().startswith("{")
    assert stat.S_IMODE(real.stat().st_mode) == 0o640


def test_new_file_has_the_mode_that_the_umask_leaves(tmp_path: Path) -> None:
    mask = os.umask(0o027)
    try:
        write(sample.passing(), [("json", tmp_path / "new")])
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640


def test_a_pipe_is_written_to_directly(tmp_path: Path) -> None:
    read, written = os.pipe()
    try:
        write(sample.report(attacks=(), utility=(), gates=()), [("junit", f"/dev/fd/{written}")])
        assert os.read(read, 1 << 16).startswith(b"<?xml")
    finally:
        os.close(read)
        os.close(written)


def test_failed_write_leaves_the_old_file_and_no_half(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    with pytest.raises(OSError, match=r"directory|exists"):
        write(sample.passing(), [("json", tmp_path / "file" / "below")])
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("file", "old")]
