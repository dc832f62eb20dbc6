"""The agent's own files as a clean start has them: the folder grimoires/ of this package, by path."""

from collections.abc import Iterator, Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable


def template() -> Mapping[str, bytes]:
    """Every file of it. Waits for the disk."""
    return dict(_files(files("grimoires"), ""))


def _files(folder: Traversable, prefix: str) -> Iterator[tuple[str, bytes]]:
    for one in folder.iterdir():
        if one.is_dir():
            if one.name != "__pycache__":
                yield from _files(one, f"{prefix}{one.name}/")
        elif not one.name.endswith((".py", ".pyc")):
            yield f"{prefix}{one.name}", one.read_bytes()
