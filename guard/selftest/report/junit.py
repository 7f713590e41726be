"""The JUnit report: a test case for every gate and every unresolved attack, so that CI shows the failing figure."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from guard.selftest.report import words
from guard.selftest.report.verdict import sentences, status
from guard.selftest.report.words import plain
from guard.selftest.results import GateResult, Report


def render(report: Report) -> str:
    """Return the report as JUnit XML."""
    suite = ET.Element("testsuite", name=f"guard selftest {plain(report.policy)}", timestamp=report.started[:19])
    if report.partial:
        _trouble(_case(suite, "selftest", "complete"), "error", "partial: the self-test was interrupted")
    for gate in report.gates:
        _gate(suite, gate, report)
    for row in report.attacks:
        if row.verdict == "unresolved":
            case = _case(suite, row.name, "resolved", row.seconds)
            _trouble(
                case, "error", f"{row.name} is unresolved: {row.reason}", row.criterion and f"must: {row.criterion}"
            )
    if status(report) == "nothing ran":
        _trouble(_case(suite, "selftest", "ran"), "error", "nothing ran")
    elif not report.passed and suite.find("*/failure") is None and suite.find("*/error") is None:
        _trouble(_case(suite, "selftest", "passed"), "error", "the self-test did not pass")
    if not len(suite):
        _case(suite, "selftest", "no gates")  # readers of JUnit take a suite without cases for a mistake
    ET.SubElement(suite, "system-out").text = "\n".join(map(plain, sentences(report)))
    root = ET.Element("testsuites")
    root.append(suite)
    for element in (root, suite):
        element.set("tests", str(len(suite.findall("testcase"))))
        element.set("failures", str(len(suite.findall("testcase/failure"))))
        element.set("errors", str(len(suite.findall("testcase/error"))))
        element.set("time", f"{report.seconds:.1f}")
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _gate(suite: ET.Element, gate: GateResult, report: Report) -> None:
    bound, figure = words.must_be(gate), words.gate_figure(gate, report.attacks)
    case = _case(suite, gate.subject, f"{gate.metric} {bound}")
    if gate.held is None:
        _trouble(case, "error", f"{gate.subject} {gate.metric} could not be judged: {gate.reason}")
    elif not gate.held:
        row = next((row for row in report.attacks if row.name == gate.subject), None)
        strongest = row.adaptive if row else None
        lines = [
            f"{gate.metric}: {words.meaning(gate.metric)}" if words.meaning(gate.metric) else "",
            f"strongest attacker: {words.who(strongest)}, {strongest.queries:,} rows" if strongest else "",
            f"without Guard: {words.measured(row.undefended)} {row.metric}" if row and row.undefended else "",
            f"would help: {row.helps}" if row and row.helps else "",
        ]
        message = f"{gate.subject} {gate.metric} is {figure} and must be {bound}"
        _trouble(case, "failure", message, "\n".join(filter(None, lines)))


def _case(suite: ET.Element, subject: str, name: str, seconds: float = 0.0) -> ET.Element:
    return ET.SubElement(
        suite, "testcase", classname=f"guard.selftest.{plain(subject)}", name=plain(name), time=f"{seconds:.1f}"
    )


def _trouble(case: ET.Element, kind: str, message: str, details: str = "") -> None:
    trouble = ET.SubElement(case, kind, message=plain(message), type=kind)
    trouble.text = "\n".join(plain(line) for line in (details or message).split("\n"))
