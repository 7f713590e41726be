"""`guard secrets` as an operator meets it."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from guard.cli.main import main
from guard.defences.secret_ngrams import decode

TEXT = "Whoever leaves before the end of March receives no bonus, whatever was agreed before.\n"


def hashed(capfdbinary: pytest.CaptureFixture[bytes], *arguments: str) -> tuple[int, bytes, str]:
    code = main(["secrets", "hash", *arguments])
    out = capfdbinary.readouterr()
    return code, out.out, out.err.decode()


def test_hash_writes_what_scan_finds(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    (tmp_path / "a.txt").write_text(TEXT)
    (tmp_path / "b.txt").write_text("Too short.")
    code, data, told = hashed(capfdbinary, str(tmp_path / "a.txt"), str(tmp_path / "b.txt"), "--run", "20")
    assert code == 0
    assert decode(data).n == 20
    assert "b.txt has fewer than 20 letters and digits" in told
    assert "runs of 20" in told
    (tmp_path / "hr.ngrams").write_bytes(data)
    (tmp_path / "p.yaml").write_text(
        "version: 1\nroutes:\n  - api: openai\n    outputs: {kind: logprobs}\n"
        "    defences: [{kind: secrets, document_files: [hr.ngrams]}]\n"
    )
    answer = tmp_path / "answer.txt"
    answer.write_text(f"Well:\nthe card 4111 1111 1111 1111\n\n> {TEXT}")
    assert main(["secrets", "scan", str(answer), "--policy", str(tmp_path / "p.yaml")]) == 1
    out = capfdbinary.readouterr()
    assert out.out == b"Well:\nthe card [redacted]\n\n> Whoever leaves before [redacted].\n"
    places = out.err.decode().splitlines()
    assert places[0].endswith("answer.txt:2:10: 19 characters")
    assert places[1].endswith("answer.txt:4:25: 62 characters")
    assert places[2] == f"guard: 2 taken out of {len(answer.read_text())} characters"
    assert "4111" not in out.err.decode()


def test_scan_without_a_policy_looks_for_what_has_a_form(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for text, code in (("nothing here", 0), ("ask ann@example.com", 1)):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        assert main(["secrets", "scan", "-", "--count"]) == code
        assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["hsah", "x"], "there is no part hsah"),
        (["hash"], "which file?"),
        (["hash", "nowhere.txt"], "cannot read nowhere.txt"),
        (["hash", "FILE", "--run", "8"], "--run is 16 to 256"),
        (["hash", "FILE"], "no document has 32"),
        (["hash", "LATIN1"], "is not UTF-8 text"),
        (["scan", "FILE", "--policy", "balanced"], "balanced has no defence of kind secrets"),
        (["scan", "FILE", "--policy", "balanced", "--route", "x"], "route x of balanced has no"),
    ],
)
def test_what_cannot_be_done_is_said(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "FILE").write_text("short")
    (tmp_path / "LATIN1").write_bytes(b"Gr\xf6\xdfe")
    there = [str(tmp_path / word) if word in ("FILE", "LATIN1") else word for word in arguments]
    assert main(["secrets", *there]) == 2
    assert said in capsys.readouterr().err
