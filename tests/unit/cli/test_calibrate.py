"""`guard calibrate`: from a directory of recordings to a profile that a route can use, and what it says on the way."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from guard.calibrate.read import CalibrationError
from guard.cli.calibrate import image_of
from guard.cli.main import main
from guard.detectors.profile import decode
from guard.detectors.sketch import Sketch
from tests.support.traffic import honest, record, thief


@pytest.fixture(scope="module")
def traffic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("traffic")
    record(directory, [honest(number, 48) for number in range(30)])
    return directory


@pytest.fixture(scope="module")
def poisoned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("poisoned")
    record(directory, [*(honest(number, 48) for number in range(30)), thief(0)])
    return directory


def test_recordings_become_a_profile_and_what_it_is_worth_is_said(
    traffic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "digits.profile.json"
    assert main(["calibrate", str(traffic), "--output", str(output)]) == 0
    profile = decode(output.read_bytes())
    assert profile.name == "digits"
    assert output.stat().st_mode & 0o777 == 0o600
    told = capsys.readouterr()
    assert "30 used, 1,440 queries" in told.out
    assert "nominal(0.01): 10 held-out clients, 99 are needed" in told.out
    assert "detectors on: repeats, one_feature_varied" in told.out
    assert told.err == ""


def test_a_file_that_exists_is_not_overwritten_without_force(
    traffic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "old.json"
    output.write_text("precious")
    assert main(["calibrate", str(traffic), "--output", str(output)]) == 2
    assert output.read_text() == "precious"
    assert "--force overwrites it" in capsys.readouterr().err
    assert main(["calibrate", str(traffic), "--output", str(output), "--force"]) == 0
    assert decode(output.read_bytes()).clients == 20
    assert [path.name for path in tmp_path.iterdir()] == ["old.json"]


def test_logs_with_a_thief_are_refused_with_a_list(
    poisoned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "p.json"
    assert main(["calibrate", str(poisoned), "--output", str(output)]) == 1
    told = capsys.readouterr()
    assert "192 queries" in told.out
    assert "near_duplicates" in told.out
    assert "1 client looks like a thief; no profile was made" in told.err
    assert not output.exists()


@pytest.mark.parametrize(("flag", "word", "left"), [("--leave-out", "left out", 1), ("--keep", "kept", 0)])
def test_a_thief_is_left_out_or_kept_when_asked(
    flag: str, word: str, left: int, poisoned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "p.json"
    assert main(["calibrate", str(poisoned), "--output", str(output), flag]) == 0
    assert decode(output.read_bytes()).left_out == left
    assert f"{word}, though they look like thieves: 1" in capsys.readouterr().out


def test_curves_are_a_picture_with_the_levels(traffic: Path, tmp_path: Path) -> None:
    curves = tmp_path / "evidence.svg"
    command = ["calibrate", str(traffic), "--output", str(tmp_path / "p.json"), "--curves", str(curves)]
    assert main(command) == 0
    root = ElementTree.fromstring(curves.read_text())
    words = "".join(root.itertext())
    assert "Evidence against honest clients of digits" in words
    assert "0.01, nominal" in words
    lines = [line.get("class") for line in root.iter("{http://www.w3.org/2000/svg}polyline")]
    assert lines.count("line s-client") == 10
    assert lines.count("line s-level") == 2


def test_what_was_cut_off_is_a_warning(traffic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (path,) = traffic.glob("*.rec")
    short = tmp_path / path.name
    short.write_bytes(path.read_bytes()[:-3])
    assert main(["calibrate", str(short), "--output", str(tmp_path / "p.json")]) == 0
    assert f"the last record of {path.name} was cut off" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["empty"], "there are no recordings"),
        (["missing"], "cannot be read"),
        (["traffic", "--route", "cats"], "no recordings of route cats"),
        (["traffic", "--image", "8x8x1"], "does not fit the recordings: their queries are 6 features"),
        (["traffic", "--image", "8by8"], "write height, width and channels as 8x8x1"),
        (["traffic", "--curves", "x.png"], "draws SVG, not .png"),
        (["traffic", "--seed", "-1"], "--seed must be 0 or more"),
    ],
)
def test_what_cannot_be_is_said(
    arguments: list[str], message: str, traffic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    where = traffic if arguments[0] == "traffic" else tmp_path / arguments[0]
    assert main(["calibrate", str(where), "--output", str(tmp_path / "p.json"), *arguments[1:]]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "p.json").exists()


def test_a_directory_that_is_not_there_is_found_before_anything_is_read(
    traffic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["calibrate", str(traffic), "--output", str(tmp_path / "no" / "p.json")]) == 2
    assert "there is no directory" in capsys.readouterr().err


def test_small_grey_images_keep_their_numbers_and_become_images() -> None:
    vector = Sketch(kind="vector", size=64)
    image = Sketch(kind="image", size=64, shape=(8, 8, 1))
    assert image_of(vector, "8x8x1") == (image, True)
    assert image_of(vector, None) == (vector, False)
    # A projection of a larger image stays one; copies are made as of an image.
    large = Sketch(kind="vector", size=784)
    assert image_of(large, "28x28x1") == (large, True)
    with pytest.raises(CalibrationError, match="their queries are text"):
        image_of(Sketch(kind="text"), "8x8x1")
