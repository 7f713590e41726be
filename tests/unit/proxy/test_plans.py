from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pytest

from guard.defences.base import Batch, Defence, Randomness
from guard.detectors.profile import encode
from guard.errors import PolicyError, Problem, StateError
from guard.model.outputs import Kind
from guard.proxy.dry_run import dry_run
from guard.proxy.load import load_active
from guard.proxy.plans import Active, Plans, said, signatures
from tests.support.fitted import fitted

POLICY = """version: 1
name: {name}
routes:
  - name: digits
    api: open_inference
    outputs: {{kind: {kind}}}
    defences: [{{kind: round, decimals: 2}}]
    budgets: [{{kind: rows, limit: 10, window: 24h}}]
"""
KEYS = "identity: [{kind: api_key, keys_file: KEYS}]\n"
HASH = "ab" * 32


def text(name: str, kind: str = "probabilities", keys: Path | None = None) -> str:
    return POLICY.format(name=name, kind=kind) + (KEYS.replace("KEYS", str(keys)) if keys else "")


@dataclass
class Bench:
    """A policy file, the plans that come of it, and what was said about reloads."""

    file: Path
    said: list[tuple[bool, str]] = field(default_factory=list[tuple[bool, str]])

    def load(self) -> Active:
        return load_active(self.file, api=None, env={})

    def plans(self, load: Callable[[], Active] | None = None) -> Plans:
        return Plans(load or self.load, lambda ok, message: self.said.append((ok, message)))

    def write(self, content: str) -> None:
        self.file.write_text(content)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    made = Bench(tmp_path / "policy.yaml")
    made.write(text("first"))
    return made


@asynccontextmanager
async def watched(plans: Plans) -> AsyncGenerator[None]:
    task = asyncio.create_task(plans.watch(interval_s=0.001))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)


async def looks(n: int = 8) -> None:
    """Give the watcher time for a few looks."""
    for _ in range(n):
        await asyncio.sleep(0.002)


class TestReload:
    async def test_a_sound_policy_comes_into_force(self, bench: Bench) -> None:
        plans = bench.plans()
        bench.write(text("second"))
        ok, message = await plans.reload()
        assert (ok, plans.current.plan.name) == (True, "second")
        assert message.startswith("policy second is in force, digest ")
        assert bench.said == [(ok, message)]

    async def test_a_bad_policy_leaves_the_old_one_in_force_and_says_every_problem(self, bench: Bench) -> None:
        plans = bench.plans()
        before = plans.current
        bench.write(text("second").replace("decimals: 2", "decimal: 2").replace("limit: 10", "limit: 0"))
        ok, message = await plans.reload()
        assert not ok
        assert plans.current is before
        assert "decimal" in message
        assert "limit" in message
        assert all(f"{bench.file}:" in line for line in message.splitlines())
        assert bench.said == [(False, message)]

    async def test_a_policy_that_is_gone_leaves_the_old_one_in_force(self, bench: Bench) -> None:
        plans = bench.plans()
        bench.file.unlink()
        assert (await plans.reload())[0] is False
        assert plans.current.plan.name == "first"

    async def test_requests_keep_the_plan_they_started_with(self, bench: Bench) -> None:
        plans = bench.plans()
        taken = plans.current
        bench.write(text("second"))
        await plans.reload()
        assert taken.plan.name == "first"
        assert plans.current is not taken

    @pytest.mark.parametrize(
        ("error", "message"),
        [
            (StateError("no secret"), "no secret"),
            (FileNotFoundError(2, "No such file", "keys"), "keys cannot be read: No such file"),
            (ZeroDivisionError("secret"), "the policy cannot be loaded: ZeroDivisionError"),
        ],
    )
    async def test_whatever_fails_is_said_and_changes_nothing(
        self, bench: Bench, error: Exception, message: str
    ) -> None:
        answers: list[Active | Exception] = [bench.load(), error]

        def load() -> Active:
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

        plans = bench.plans(load)
        assert await plans.reload() == (False, message)
        assert plans.current.plan.name == "first"

    async def test_loading_does_not_block_the_event_loop(self, bench: Bench) -> None:
        loop_ran = asyncio.Event()
        first = bench.load()
        loop = asyncio.get_running_loop()

        def load() -> Active:
            asyncio.run_coroutine_threadsafe(asyncio.wait_for(loop_ran.wait(), 20), loop).result()
            return first

        plans = Plans(load, lambda _ok, _message: None, first)
        task = asyncio.create_task(plans.reload())
        await asyncio.sleep(0)
        loop_ran.set()
        assert (await task)[0] is True

    async def test_reloads_at_the_same_time_take_turns(self, bench: Bench) -> None:
        plans = bench.plans()
        results = await asyncio.gather(*[plans.reload() for _ in range(5)])
        assert all(ok for ok, _ in results)
        assert len(bench.said) == 5

    async def test_a_first_policy_that_cannot_run_is_an_error(self, bench: Bench) -> None:
        active = broken(bench, Raises())
        with pytest.raises(PolicyError, match="the route cannot run: ZeroDivisionError"):
            Plans(lambda: active, lambda _ok, _message: None)


class TestWatch:
    async def test_an_edit_is_noticed(self, bench: Bench) -> None:
        plans = bench.plans()
        async with watched(plans):
            bench.write(text("second"))
            await until(lambda: plans.current.plan.name == "second")

    async def test_an_edit_of_a_keys_file_is_noticed(self, bench: Bench, tmp_path: Path) -> None:
        keys = tmp_path / "keys"
        keys.write_text(f"alice:{HASH}\n")
        bench.write(text("first", keys=keys))
        plans = bench.plans()
        async with watched(plans):
            keys.write_text(f"alice:{HASH}\nbob:{'cd' * 32}\n")
            await until(lambda: bool(bench.said))
        assert bench.said[0][0] is True

    async def test_nothing_changed_means_no_reload(self, bench: Bench) -> None:
        plans = bench.plans()
        async with watched(plans):
            await looks()
        assert bench.said == []

    async def test_a_bad_edit_is_said_once_and_its_correction_noticed(self, bench: Bench) -> None:
        plans = bench.plans()
        async with watched(plans):
            bench.write("version: 1\n")
            await until(lambda: bool(bench.said))
            await looks()
            assert [ok for ok, _ in bench.said] == [False]
            bench.write(text("third"))
            await until(lambda: plans.current.plan.name == "third")

    async def test_a_file_renamed_over_the_old_one_is_noticed(self, bench: Bench, tmp_path: Path) -> None:
        plans = bench.plans()
        async with watched(plans):
            (tmp_path / "new").write_text(text("secnd"))
            (tmp_path / "new").replace(bench.file)
            await until(lambda: plans.current.plan.name == "secnd")

    async def test_a_copy_that_keeps_size_and_time_is_noticed(self, bench: Bench) -> None:
        found = bench.file.stat()
        plans = bench.plans()
        async with watched(plans):
            bench.write(text("frist"))
            os.utime(bench.file, ns=(found.st_atime_ns, found.st_mtime_ns))
            await until(lambda: plans.current.plan.name == "frist")

    async def test_the_symlink_swap_of_a_kubernetes_volume_is_noticed(self, bench: Bench, tmp_path: Path) -> None:
        volume = tmp_path / "volume"
        for name in ("one", "two"):
            (volume / f"..{name}").mkdir(parents=True)
            (volume / f"..{name}" / "policy.yaml").write_text(text(name))
        (volume / "..data").symlink_to("..one")
        (volume / "policy.yaml").symlink_to("..data/policy.yaml")
        bench.file = volume / "policy.yaml"
        plans = bench.plans()
        async with watched(plans):
            (volume / "..data_tmp").symlink_to("..two")
            (volume / "..data_tmp").replace(volume / "..data")
            await until(lambda: plans.current.plan.name == "two")

    async def test_a_file_gone_for_a_moment_is_waited_for(self, bench: Bench, tmp_path: Path) -> None:
        plans = bench.plans()
        looked = 0

        def gone(path: Path) -> bool:
            nonlocal looked
            looked += signatures([path])[path] is None
            return looked > 0

        bench.file.rename(tmp_path / "away")
        task = asyncio.create_task(plans.watch(interval_s=0.02))
        await until(lambda: gone(bench.file))
        (tmp_path / "away").rename(bench.file)
        bench.write(text("second"))
        await until(lambda: plans.current.plan.name == "second")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert [ok for ok, _ in bench.said] == [True]

    async def test_a_file_gone_for_good_is_said_once_and_noticed_when_it_comes_back(
        self, bench: Bench, tmp_path: Path
    ) -> None:
        plans = bench.plans()
        async with watched(plans):
            bench.file.rename(tmp_path / "away")
            await until(lambda: bool(bench.said))
            await looks()
            assert [ok for ok, _ in bench.said] == [False]
            assert plans.current.plan.name == "first"
            (tmp_path / "away").rename(bench.file)
            await until(lambda: len(bench.said) == 2)
        assert bench.said[1][0] is True

    async def test_a_profile_that_vanishes_leaves_the_last_good_one_in_force(
        self, bench: Bench, tmp_path: Path
    ) -> None:
        profile = tmp_path / "digits.profile"
        profile.write_bytes(encode(fitted()))
        bench.write(text("first") + "    profile: digits.profile\n")
        plans = bench.plans()
        before = plans.current
        async with watched(plans):
            profile.rename(tmp_path / "away")
            await until(lambda: bool(bench.said))
            await looks()
            ((ok, message),) = bench.said
            assert not ok
            assert f"{bench.file}:9: routes[0].profile: cannot read the profile {profile}" in message
            assert plans.current is before
            assert plans.current.plan.routes[0].detection is not None
            profile.write_bytes(encode(replace(fitted(), horizon=901)))
            await until(lambda: plans.current is not before)
        assert bench.said[-1][0]
        assert plans.current.plan.digest != before.plan.digest

    async def test_a_damaged_profile_leaves_the_last_good_one_in_force(self, bench: Bench, tmp_path: Path) -> None:
        profile = tmp_path / "digits.profile"
        profile.write_bytes(encode(fitted()))
        bench.write(text("first") + "    profile: digits.profile\n")
        plans = bench.plans()
        before = plans.current
        profile.write_bytes(profile.read_bytes()[:-9])
        ok, message = await plans.reload()
        assert not ok
        assert "damaged" in message
        assert plans.current is before

    async def test_a_profile_that_a_bad_policy_names_is_watched_too(self, bench: Bench, tmp_path: Path) -> None:
        plans = bench.plans()
        async with watched(plans):
            bench.write(text("second") + "    profile: digits.profile\n")
            await until(lambda: bool(bench.said))
            assert plans.current.plan.name == "first"
            (tmp_path / "new").write_bytes(encode(fitted()))
            (tmp_path / "new").rename(tmp_path / "digits.profile")
            await until(lambda: plans.current.plan.name == "second")

    async def test_a_file_that_a_bad_policy_names_is_watched_too(self, bench: Bench, tmp_path: Path) -> None:
        plans = bench.plans()
        keys = tmp_path / "keys"
        async with watched(plans):
            bench.write(text("second", keys=keys))
            await until(lambda: bool(bench.said))
            assert plans.current.plan.name == "first"
            keys.write_text(f"alice:{HASH}\n")
            await until(lambda: plans.current.plan.name == "second")


class Raises(Defence, frozen=True):
    """Fails whenever it runs."""

    suits: ClassVar[frozenset[Kind]] = frozenset({"probabilities"})
    kind: Literal["raises"] = "raises"

    def apply(self, batch: Batch, rng: Randomness, salt: bytes) -> Batch:
        raise ZeroDivisionError("always")


class NotFinite(Raises, frozen=True):
    """Leaves what is not a number."""

    def apply(self, batch: Batch, rng: Randomness, salt: bytes) -> Batch:
        return batch._replace(scores=batch.scores * np.nan)


def broken(bench: Bench, defence: Defence) -> Active:
    active = bench.load()
    routes = tuple(replace(route, defences=(defence,)) for route in active.plan.routes)
    return Active(replace(active.plan, routes=routes), active.identity, active.files)


class TestDryRun:
    @pytest.mark.parametrize("defence", [Raises(), NotFinite()])
    async def test_a_plan_that_cannot_run_is_never_swapped_in(self, bench: Bench, defence: Defence) -> None:
        answers = [bench.load(), broken(bench, defence)]
        plans = bench.plans(lambda: answers.pop(0))
        ok, message = await plans.reload()
        assert (ok, plans.current.plan.name) == (False, "first")
        assert message.startswith("routes[0]: the route cannot run: ")

    @pytest.mark.parametrize(
        "kind", ["probabilities", "logits", "logprobs", "value, low: -1, high: 3", "value", "embedding"]
    )
    def test_every_kind_of_outputs_is_tried(self, bench: Bench, kind: str) -> None:
        bench.write(text("first", kind).replace("round, decimals: 2", "noise, scale: 0.1, mechanism: gaussian"))
        active = bench.load()
        dry_run(active.plan, active.identity)

    def test_labels_have_no_scores_to_try(self, bench: Bench) -> None:
        bench.write(text("first", "labels").replace("{kind: round, decimals: 2}", ""))
        active = bench.load()
        dry_run(active.plan, active.identity)

    def test_declared_inputs_are_tried_in_their_own_size(self, bench: Bench) -> None:
        bench.write(text("first") + "    inputs: {kind: vector, size: 3, low: 0, high: 1, step: 0.1}\n")
        active = bench.load()
        dry_run(active.plan, active.identity)

    def test_detection_is_tried(self, bench: Bench, tmp_path: Path) -> None:
        (tmp_path / "digits.profile").write_bytes(encode(fitted()))
        rung = "{false_alarm: 1e-3, action: degrade, defences: [{kind: label_only}]}"
        bench.write(text("first") + f"    profile: digits.profile\n    ladder: [{rung}]\n")
        active = bench.load()
        dry_run(active.plan, active.identity)
        (route,) = active.plan.routes
        assert route.detection is not None
        (step,) = route.detection.ladder
        for found in (
            replace(route.detection, ladder=(replace(step, defences=(Raises(),)),)),
            replace(route.detection, setup=replace(route.detection.setup, query_signals=1)),
        ):
            plan = replace(active.plan, routes=(replace(route, detection=found),))
            with pytest.raises(PolicyError, match="the route cannot run"):
                dry_run(plan, active.identity)


class TestActive:
    def test_headers_that_go_upstream(self, bench: Bench, tmp_path: Path) -> None:
        keys = tmp_path / "keys"
        keys.write_text(f"alice:{HASH}\n")
        (tmp_path / "token").write_text("s3cret-token-value")
        extra = "forward_headers: [X-Tenant]\nupstream_headers: [{name: X-Upstream, value: {file: token}}]\n"
        bench.write(text("first", keys=keys).replace("KEYS}", "KEYS, forward: true}") + extra)
        active = bench.load()
        assert active.added == [(b"x-upstream", b"s3cret-token-value")]
        assert b"x-tenant" in active.forwarded
        assert "s3cret" not in repr(active)

    def test_what_no_route_opens_goes_through_untouched(self, bench: Bench) -> None:
        through = bench.load().transparent
        assert (through.name, through.mode, through.defences, through.budgets) == ("none", "shadow", (), ())


def test_a_problem_in_one_line() -> None:
    assert said(Problem("wrong")) == "wrong"
    assert said(Problem("wrong", "a.b", 3, "do c"), "f") == "f:3: a.b: wrong (do c)"
    assert said(Problem("wrong", file="g"), "f") == "g: wrong"
