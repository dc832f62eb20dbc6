import ast
import re
from pathlib import Path

from persistence import errors
from tests.test_architecture import files, parse


def classes(path: Path) -> dict[str, str]:
    """The classes of a file that are an error of finn's, each with the one that it is a kind of."""
    found = (node for node in ast.walk(parse(path)) if isinstance(node, ast.ClassDef) and node.bases)
    bases = {node.name: ast.unparse(node.bases[0]) for node in found}
    return {name: base for name, base in bases.items() if hasattr(errors, base)}


def drawn() -> dict[str, str]:
    """The tree of the docstring: each error with the one that it hangs from."""
    tree: dict[str, str] = {}
    path = ["FinnError"]
    for branch, name in re.findall(r"^([│ ]*[├└]── )(\w+)", errors.__doc__ or "", re.MULTILINE):
        depth = len(branch) // 4
        tree[name] = path[depth - 1]
        path[depth:] = [name]
    return tree


def test_the_tree_shows_every_error_where_it_hangs() -> None:
    assert drawn() == classes(Path(errors.__file__))


def test_persistence_has_no_error_but_those_of_the_tree() -> None:
    elsewhere = {path.name: classes(path) for path in files("persistence") if path != Path(errors.__file__)}
    assert {name: found for name, found in elsewhere.items() if found} == {}
