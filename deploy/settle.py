"""The same image for the same content: `settle.py ARCHIVE SETTLED` leaves out what only tells of its own building.

buildah writes into an image which container it was made in, and the ids of the images in between, which are others each
time. What is left is what it holds and how it is run, so that two builds from the same inputs have one id. Both files
are archives as `docker save` writes them. Needs nothing but Python.
"""

import hashlib
import io
import json
import sys
import tarfile
from pathlib import Path
from typing import Any

OF_THE_BUILD = ("container", "container_config", "parent")
EMPTY = "Hostname"  #: of the configuration; whoever runs it gives it one


def main(archive: Path, settled: Path) -> None:
    """Writes the other archive."""
    with tarfile.open(archive) as old, tarfile.open(settled, "w", format=tarfile.USTAR_FORMAT) as new:
        (image,) = json.load(_member(old, "manifest.json"))
        config = json.dumps(settle(json.load(_member(old, image["Config"]))), sort_keys=True).encode()
        image["Config"] = f"{hashlib.sha256(config).hexdigest()}.json"
        for name in dict.fromkeys(image["Layers"]):
            layer = _member(old, name)
            _add(new, name, layer, layer.seek(0, io.SEEK_END))
        _add(new, image["Config"], io.BytesIO(config), len(config))
        manifest = json.dumps([image]).encode()
        _add(new, "manifest.json", io.BytesIO(manifest), len(manifest))


def settle(config: dict[str, Any]) -> dict[str, Any]:
    """An image's configuration without what is of its build alone."""
    steps = [{key: said for key, said in step.items() if key != "comment"} for step in config["history"]]
    kept = {key: value for key, value in config.items() if key not in OF_THE_BUILD}
    return {**kept, "history": steps, "config": {**config["config"], EMPTY: ""}}


def _member(archive: tarfile.TarFile, name: str) -> Any:
    found = archive.extractfile(name)
    assert found is not None, f"{name} is a folder"
    return found


def _add(archive: tarfile.TarFile, name: str, data: Any, size: int) -> None:
    data.seek(0)
    entry = tarfile.TarInfo(name)
    entry.size = size
    archive.addfile(entry, data)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
