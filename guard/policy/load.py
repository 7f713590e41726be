"""From a file or a preset to a plan. The only module of the policy that reads files.

`load_plan` is what the server, a reload and `guard check` call, so what checks is what serves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path

from pydantic import ValidationError

from guard.defences.secret_ngrams import MAX_BYTES as MAX_NGRAMS_BYTES
from guard.defences.secret_ngrams import Ngrams
from guard.defences.secret_ngrams import decode as decode_ngrams
from guard.detectors.profile import MAX_BYTES as MAX_PROFILE_BYTES
from guard.detectors.profile import Profile, ProfileError, decode
from guard.errors import PolicyError, Problem
from guard.model.secret import Reference
from guard.policy.compile import NO_SALT, compile_policy
from guard.policy.documents import named
from guard.policy.plan import Plan
from guard.policy.presets import find_policy
from guard.policy.problems import problems_of
from guard.policy.schema import Policy
from guard.policy.yamlmap import Node, locate, merge, read_yaml

MAX_BYTES = 2**20
DEFAULT_API = "open_inference"
"""What a route speaks when neither it nor `--api` says."""
DEFAULT_TEXT_API = "openai"
"""The same, in a policy that is written for a language model."""
MAX_SECRET_BYTES = 2**16
MAX_EXTENDS = 8


@dataclass(frozen=True, slots=True)
class Loaded:
    """A validated policy and where it came from.

    Args:
        policy: the policy, `extends` and secrets resolved.
        files: every file that it depends on, in the order of reading: the policy, what it extends, secrets, keys.
        source: the policy's own file.
        root: its nodes, merged, for `problem_lines`.
        warnings: files that are named and not there.
        profiles: what the routes' `profile` files hold, by path.
        documents: what the defences' `document_files` hold, by path.
    """

    policy: Policy
    files: tuple[Path, ...]
    source: Path
    root: Node = field(repr=False)
    warnings: tuple[Problem, ...] = ()
    profiles: Mapping[str, Profile] = field(default_factory=dict[str, Profile], repr=False)
    documents: Mapping[str, Ngrams] = field(default_factory=dict[str, Ngrams], repr=False)


def assumed_api(policy: Policy) -> str:
    """Return what routes speak when neither they nor `--api` say; one that bounds parameters is a language model's."""
    return DEFAULT_TEXT_API if any(route.parameters for route in policy.routes) else DEFAULT_API


def unnamed_apis(policy: Policy) -> list[Problem]:
    """Return a warning for each route that is taken for what `assumed_api` says."""
    hint = f"taken for {assumed_api(policy)}; write api: here, or start with --api"
    message = "no API is named for this route"
    return [
        Problem(message, f"routes[{i}].api", hint=hint) for i, route in enumerate(policy.routes) if route.api is None
    ]


def load_plan(
    source: str | Path, *, api: str | None, env: Mapping[str, str], salt: bytes = NO_SALT, today: date | None = None
) -> Plan:
    """Load and compile a policy.

    Args:
        source: a preset's name or a path.
        api: the API of routes that name none; None takes them for what `assumed_api` says.
        env: environment variables, for `{env: NAME}`.
        salt: secret of the deployment, for detectors; without it the plan can be looked at, and should serve nobody.
        today: the day in UTC, to warn of exceptions that have ended.

    Returns:
        The plan; its warnings carry lines, its `files` are what a watcher must watch.

    Raises:
        PolicyError: every mistake that was found, with file, line, path and hint.
    """
    return plan_of(load_policy(source, env=env), api=api, salt=salt, today=today)


def plan_of(loaded: Loaded, *, api: str | None, salt: bytes = NO_SALT, today: date | None = None) -> Plan:
    """Compile a loaded policy; problems and warnings get their lines. Arguments are those of `load_plan`.

    Raises:
        PolicyError: every contradiction.
    """
    try:
        spoken = api or assumed_api(loaded.policy)
        plan = compile_policy(
            loaded.policy,
            api=spoken,
            profiles=loaded.profiles,
            documents=loaded.documents,
            salt=salt,
            today=today,
        )
    except PolicyError as error:
        depends = (*loaded.profiles, *loaded.documents)
        raise PolicyError(problem_lines(error.problems, loaded.root), str(loaded.source), depends) from error
    warnings = problem_lines([*plan.warnings, *loaded.warnings], loaded.root)
    return replace(plan, warnings=tuple(warnings), files=loaded.files)


def load_policy(source: str | Path, *, env: Mapping[str, str]) -> Loaded:
    """Read, merge and validate a policy.

    Args:
        source: a preset's name or a path.
        env: environment variables, for `{env: NAME}`.

    Raises:
        PolicyError: every mistake that was found, with file, line, path and hint.
    """
    path = find_policy(source)
    files: list[Path] = []
    root = _read(path, files, ())
    if not isinstance(root.value, dict):
        hint = "start with version: 1, then routes:"
        raise PolicyError(
            [Problem("a policy is a map of keys and values", line=root.line, hint=hint, file=root.file)], str(path)
        )
    data = _plain(root)
    try:
        policy = Policy.model_validate(data, context=_Secrets(env, files))
    except ValidationError as error:
        raise PolicyError(problem_lines(problems_of(error, data), root), str(path)) from error
    warnings: list[Problem] = []
    for index, identity in enumerate(policy.identity):
        for name in ("keys_file", "jwks_file"):
            if (value := getattr(identity, name, None)) is not None:
                files.append(Path(value))
                if not Path(value).is_file():
                    warnings.append(
                        Problem(f"there is no file {value}", f"identity[{index}].{name}", hint="guard serve needs it")
                    )
    profiles = _profiles(policy, root, path, files)
    documents = _documents(policy, root, path, files)
    return Loaded(policy, tuple(dict.fromkeys(files)), path, root, tuple(warnings), profiles, documents)


def _profiles(policy: Policy, root: Node, source: Path, files: list[Path]) -> dict[str, Profile]:
    """Read the profiles of all routes.

    Raises:
        PolicyError: those that cannot be used, at the key that names them.
    """
    found: dict[str, Profile] = {}
    problems: list[Problem] = []
    for index, route in enumerate(policy.routes):
        if route.profile is None or route.profile in found:
            continue
        files.append(Path(route.profile))
        at = f"routes[{index}].profile"
        try:
            found[route.profile] = decode(_bounded(Path(route.profile), MAX_PROFILE_BYTES))
        except OSError as error:
            hint = "guard calibrate makes one of what guard serve --record wrote"
            problems.append(Problem(f"cannot read the profile {route.profile}: {error.strerror}", at, hint=hint))
        except ProfileError as error:
            hint = "guard calibrate makes a new one"
            problems.append(Problem(f"{route.profile}: {error}", at, hint=hint))
        except ValueError as error:
            problems.append(Problem(f"{route.profile}: {error}", at, hint="guard calibrate makes smaller ones"))
    if problems:
        raise PolicyError(problem_lines(problems, root), str(source), tuple(map(str, files)))
    return found


def _documents(policy: Policy, root: Node, source: Path, files: list[Path]) -> dict[str, Ngrams]:
    """Read the hashed documents of all defences.

    Raises:
        PolicyError: those that cannot be used, where they are named.
    """
    found: dict[str, Ngrams] = {}
    problems: list[Problem] = []
    for path, at in named(policy):
        files.append(Path(path))
        if path in found:
            continue
        try:
            found[path] = decode_ngrams(_bounded(Path(path), MAX_NGRAMS_BYTES))
        except OSError as error:
            hint = f"guard secrets hash FILE... > {Path(path).name}"
            problems.append(Problem(f"cannot read the documents {path}: {error.strerror}", at, hint=hint))
        except ValueError as error:
            problems.append(Problem(f"{path}: {error}", at, hint="guard secrets hash FILE... writes a new one"))
    if problems:
        raise PolicyError(problem_lines(problems, root), str(source), tuple(map(str, files)))
    return found


def problem_lines(problems: Iterable[Problem], root: Node) -> list[Problem]:
    """Return the problems with the file and line of the node at their path, or of the nearest one above it."""
    placed: list[Problem] = []
    for problem in problems:
        node = locate(root, problem.path)
        placed.append(problem if problem.line else replace(problem, line=node.line, file=node.file))
    return placed


def _read(path: Path, files: list[Path], above: tuple[Path, ...]) -> Node:
    """Read a file and what it extends; relative paths in it become absolute."""
    files.append(path)
    directory = path.absolute().parent
    root = _anchor_profiles(_anchor(read_yaml(_text(path), str(path)), directory), directory)
    extends = root.value.get("extends") if isinstance(root.value, dict) else None
    if extends is None or extends.value is None:
        return root
    chain = (*above, path.resolve())
    try:
        if not isinstance(extends.value, str):
            raise PolicyError([Problem("extends must be one name or path", hint="extends: balanced")])
        base = find_policy(extends.value, path.parent)
        if base.resolve() in chain:
            raise PolicyError(
                [Problem("a policy cannot extend itself, not even through others", hint="drop one extends")]
            )
        if len(chain) >= MAX_EXTENDS:
            raise PolicyError(
                [Problem(f"policies extend each other more than {MAX_EXTENDS} deep", hint="merge some of them")]
            )
    except PolicyError as error:
        problems = [
            replace(problem, path="extends", line=extends.line, file=extends.file) for problem in error.problems
        ]
        raise PolicyError(problems, str(path)) from error
    return merge(_read(base, files, chain), root)


def _text(path: Path) -> str:
    try:
        data = _bounded(path, MAX_BYTES)
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise PolicyError([Problem("this is not UTF-8 text", line=line, file=str(path))], str(path)) from error
    except OSError as error:
        raise PolicyError([Problem(f"cannot read the file: {error.strerror}", file=str(path))], str(path)) from error
    except ValueError as error:
        raise PolicyError([Problem(str(error), file=str(path))], str(path)) from error


def _bounded(path: Path, limit: int) -> bytes:
    with path.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"the file is larger than {limit} bytes")
    return data


def _anchor(node: Node, directory: Path) -> Node:
    """Make paths absolute, relative to this file's folder: of keys in `_file`, lists in `_files`, {file: PATH}."""
    match node.value:
        case dict() as items:
            value = {key: _anchor(item, directory) for key, item in items.items()}
            for key, item in value.items():
                if (key.endswith("_file") or items.keys() == {"file"}) and isinstance(item.value, str):
                    value[key] = replace(item, value=str(directory / item.value))
                elif key.endswith("_files") and isinstance(item.value, list):
                    value[key] = replace(item, value=[_below(path, directory) for path in item.value])
            return replace(node, value=value)
        case list() as items:
            return replace(node, value=[_anchor(item, directory) for item in items])
        case _:
            return node


def _below(path: Node, directory: Path) -> Node:
    return replace(path, value=str(directory / path.value)) if isinstance(path.value, str) else path


def _anchor_profiles(root: Node, directory: Path) -> Node:
    """Make the routes' `profile` absolute, likewise."""
    routes = root.value.get("routes") if isinstance(root.value, dict) else None
    if routes is None or not isinstance(routes.value, list) or not isinstance(root.value, dict):
        return root
    anchored: list[Node] = []
    for route in routes.value:
        profile = route.value.get("profile") if isinstance(route.value, dict) else None
        if profile is None or not isinstance(profile.value, str) or not profile.value:
            anchored.append(route)
        elif isinstance(route.value, dict):
            made = replace(profile, value=str(directory / profile.value))
            anchored.append(replace(route, value=route.value | {"profile": made}))
    return replace(root, value=root.value | {"routes": replace(routes, value=anchored)})


def _plain(node: Node) -> object:
    """Return nodes as plain data; a map of just `env` or `file` is a reference to a secret."""
    match node.value:
        case dict() as items:
            if (
                len(items) == 1
                and (only := next(iter(items))) in ("env", "file")
                and isinstance(items[only].value, str)
            ):
                return Reference("env" if only == "env" else "file", str(items[only].value))
            return {key: _plain(item) for key, item in items.items()}
        case list() as items:
            return [_plain(item) for item in items]
        case _:
            return node.value


@dataclass(frozen=True, slots=True)
class _Secrets:
    """Reads the secrets that a policy refers to; remembers the files."""

    env: Mapping[str, str]
    files: list[Path]

    def read(self, reference: Reference) -> str:
        """Return the secret.

        Raises:
            ValueError: it is not there, empty or not a text.
        """
        if reference.source == "env":
            if not (value := self.env.get(reference.name, "")):
                raise ValueError(f"the environment variable {reference.name} is not set")
            return value
        path = Path(reference.name)
        self.files.append(path)
        try:
            value = _bounded(path, MAX_SECRET_BYTES).decode().rstrip("\r\n")
        except OSError as error:
            raise ValueError(f"cannot read {path}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is not UTF-8 text") from error
        if not value:
            raise ValueError(f"{path} is empty")
        return value
