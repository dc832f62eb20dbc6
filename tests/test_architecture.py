"""The house stands: floors, folders, words, and the few rooms that touch the clock, the environment or a slow import.

gateway  >  scheduler  >  agent  >  persistence        an import goes down, never up, never in a circle
"""

import ast
import graphlib
import importlib.metadata
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = ("persistence", "agent", "scheduler", "gateway")  # lowest first
PACKAGES = (*FLOORS, "grimoires")
FOLDERS = {*PACKAGES, "deploy", "tests", "docs", "scripts", "dist"}  # hidden ones apart; dist is what a build leaves
WORDS_NOT_USED = {
    *("common", "core", "engine", "handler", "handlers", "helper", "helpers", "job", "manager", "payload"),
    *("service", "shared", "util", "utils", "worker"),
}

# What `import gateway.app` may load besides the standard library and ourselves (cython_runtime is part of httptools).
# All of it is needed before the first answer; every name here is paid for at each start.
LOADED_AT_START = {
    *("annotated_types", "anyio", "click", "cython_runtime", "httptools", "pydantic", "pydantic_core", "sniffio"),
    *("starlette", "typing_extensions", "typing_inspection", "uvicorn", "websockets"),
}
LOADED_LATER = {
    *("anthropic", "boto3", "botocore", "git", "httpx2", "openai", "portalocker", "prometheus_client"),
    *("pydantic_ai", "ulid"),
}

CLOCK = {
    *("anyio.sleep", "datetime.date.today", "datetime.datetime.now", "datetime.datetime.today"),
    *("datetime.datetime.utcnow", "os.getrandom", "os.urandom", "random", "secrets", "time", "uuid"),
}
ENVIRONMENT = {"os.environ", "os.environb", "os.getenv", "os.getenvb", "os.putenv"}


def files(*packages: str) -> list[Path]:
    found = (path for package in packages for path in (ROOT / package).rglob("*.py"))
    return sorted(path for path in found if "node_modules" not in path.parts)


def module(path: Path) -> str:
    """`agent/tools/__init__.py` is `agent.tools`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module(path): path for path in files(*PACKAGES)}


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imported(node: ast.AST) -> Iterator[str]:
    """The dotted names an import statement binds: `from agent import tool` gives `agent.tool`."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    if isinstance(node, ast.ImportFrom):
        yield from (f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names)


def imports(tree: ast.AST) -> set[str]:
    return {name for node in ast.walk(tree) for name in imported(node)}


def imports_when_loaded(tree: ast.Module) -> set[str]:
    """The imports that run with the file itself: none inside a function, none that only a type checker sees."""
    names: set[str] = set()
    pending: list[ast.AST] = list(tree.body)
    while pending:
        node = pending.pop()
        names.update(imported(node))
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            pending.extend(node.orelse)
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            pending.extend(ast.iter_child_nodes(node))
    return names


def own_module(name: str) -> str | None:
    """The file of ours that a dotted name means, or None."""
    if name in MODULES:
        return name
    parent = name.rpartition(".")[0]
    return parent if parent in MODULES else None


def uses(tree: ast.Module, forbidden: set[str]) -> set[str]:
    """The names of `forbidden` that a file imports or reaches through an import, under whatever alias."""
    aliases: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            aliases |= {
                a.asname or a.name.split(".")[0]: a.name if a.asname else a.name.split(".")[0] for a in node.names
            }
        if isinstance(node, ast.ImportFrom):
            aliases |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    reached = imports(tree) | {dotted(node, aliases) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    return {name for name in reached for rule in forbidden if name == rule or name.startswith(f"{rule}.")}


def dotted(node: ast.expr, aliases: dict[str, str]) -> str:
    """`dt.now` after `from datetime import datetime as dt` is `datetime.datetime.now`."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value, aliases)}.{node.attr}"
    return aliases.get(node.id, f"local {node.id}") if isinstance(node, ast.Name) else "local"


def waits(node: ast.AST) -> bool:
    """A call of `asyncio.sleep` that takes time; `sleep(0)` reads no clock, it only lets others run."""
    if isinstance(node, ast.ImportFrom):
        return "asyncio.sleep" in imported(node)
    return (
        isinstance(node, ast.Call)
        and ast.unparse(node.func) == "asyncio.sleep"
        and ast.unparse(node) != "asyncio.sleep(0)"
    )


def reads_loop_clock(node: ast.AST) -> bool:
    """`loop.time` and what is called by it; an event loop is recognised by the name it goes by."""
    if not isinstance(node, ast.Attribute):
        return False
    return node.attr in {"call_at", "call_later"} or (node.attr == "time" and "loop" in ast.unparse(node.value))


def broken(rule: Callable[[ast.AST], bool], *, but: str) -> list[str]:
    """Where a rule on single nodes is broken; `but` is the one file that may."""
    return [
        f"{name}: {ast.unparse(node)}"
        for name, path in MODULES.items()
        for node in ast.walk(parse(path))
        if name != but and rule(node)
    ]


def found(rule: set[str], *, but: str) -> dict[str, set[str]]:
    """Where a rule is broken, by module; `but` is the one file that may."""
    reached = {name: uses(parse(path), rule) for name, path in MODULES.items() if name != but}
    return {name: what for name, what in reached.items() if what}


def test_an_import_goes_down_and_never_up() -> None:
    upwards = [
        f"{name} imports {target}"
        for name, path in MODULES.items()
        for target in imports(parse(path))
        if (floor := target.split(".")[0]) in FLOORS
        and (name.split(".")[0] not in FLOORS or FLOORS.index(floor) > FLOORS.index(name.split(".")[0]))
    ]
    assert upwards == []


def mapped() -> list[tuple[str, str]]:
    """The rooms of persistence with their groups, as the map in its docstring draws them."""
    found: list[tuple[str, str]] = []
    for line in (ast.get_docstring(parse(ROOT / "persistence" / "__init__.py")) or "").splitlines()[3:]:
        if drawn := re.fullmatch(r"(\w*) +(\w+)  +\S.*", line):
            found.append((drawn[1] or found[-1][0], drawn[2]))
    return found


def test_every_room_of_persistence_is_on_the_map_once() -> None:
    rooms = [name.removeprefix("persistence.") for name in MODULES if name.startswith("persistence.")]
    assert sorted(room for _, room in mapped()) == sorted(room for room in rooms if "." not in room)


def test_a_room_of_persistence_leans_on_its_own_group_and_on_those_above() -> None:
    groups = list(dict.fromkeys(group for group, _ in mapped()))
    group_of = {f"persistence.{room}": groups.index(group) for group, room in mapped()}
    downwards = [
        f"{name} leans on {own}"
        for name, path in MODULES.items()
        for target in imports(parse(path))
        if (own := room(own_module(target) or "")) in group_of and group_of.get(room(name), len(groups)) < group_of[own]
    ]
    assert downwards == []


def room(name: str) -> str:
    """`persistence.stores.s3` is in the room `persistence.stores`."""
    return ".".join(name.split(".")[:2])


def test_no_module_imports_itself_in_a_circle() -> None:
    graph = {
        name: {own for target in imports_when_loaded(parse(path)) if (own := own_module(target))} - {name}
        for name, path in MODULES.items()
    }
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" > ".join(error.args[1]))


def test_every_import_is_absolute() -> None:
    relative = [
        f"{path}: {name}" for path in files(*PACKAGES, "tests") for name in imports(parse(path)) if name[0] == "."
    ]
    assert relative == []


def test_the_top_level_folders_are_the_fixed_ones() -> None:
    assert {path.name for path in ROOT.iterdir() if path.is_dir() and path.name[0] != "."} <= FOLDERS


def test_no_file_is_named_by_a_word_that_says_nothing() -> None:
    parts = {part for path in files(*PACKAGES) for part in path.relative_to(ROOT).with_suffix("").parts}
    assert {word for part in parts for word in part.split("_")} & WORDS_NOT_USED == set()


def test_every_file_opens_with_what_it_is() -> None:
    assert [str(path) for path in files(*PACKAGES) if not ast.get_docstring(parse(path))] == []


def test_the_clock_and_randomness_are_read_in_one_file() -> None:
    assert found(CLOCK, but="persistence.clock") == {}


def test_nothing_waits_but_by_a_clock_it_was_given() -> None:
    assert broken(waits, but="persistence.clock") == []


def test_only_the_server_schedules_on_the_clock_of_the_loop() -> None:
    assert broken(reads_loop_clock, but="gateway.server") == []


def test_the_environment_is_read_in_one_file() -> None:
    assert found(ENVIRONMENT, but="gateway.settings") == {}


def test_a_start_loads_only_what_the_first_answer_needs() -> None:
    assert LOADED_AT_START.isdisjoint(LOADED_LATER)
    assert loaded_by("gateway.app") - sys.stdlib_module_names - {*PACKAGES} <= LOADED_AT_START


def loaded_by(name: str) -> set[str]:
    """The top-level modules that a fresh interpreter holds after `import name`, beyond those it starts with."""
    program = f"import sys; before = set(sys.modules); import {name}; print(*set(sys.modules) - before)"
    child = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stderr
    tops = {module.split(".")[0] for module in child.stdout.split()}
    return {top for top in tops if not top.startswith("_")}


def test_no_distribution_ships_a_package_of_our_name() -> None:
    """Site-packages come before an editable checkout on the path, so a foreign `agent` would be taken for ours."""
    foreign = {
        f"{distribution.name}: {file}"
        for distribution in importlib.metadata.distributions()
        if distribution.name != "finn"
        for file in distribution.files or ()
        if file.parts[0].removesuffix(".py") in {*PACKAGES, "tests"}
    }
    assert foreign == set()


def test_every_locked_distribution_carries_hashes_and_no_address() -> None:
    for lock in ("requirements.lock", "requirements-test.lock"):
        text = (ROOT / lock).read_text(encoding="utf-8")
        pinned = [block for block in text.split("\n") if block and block[0] not in " #"]
        assert pinned and all(line.endswith("\\") and "==" in line for line in pinned)
        assert "://" not in text and "--find-links" not in text and "--index-url" not in text
