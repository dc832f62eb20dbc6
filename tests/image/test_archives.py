"""What scripts/image does with an archive of an image: it settles it, and weighs it."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from deploy import settle, weigh

PACKAGES = "opt/finn/lib/python3.13/site-packages"
FILES = {
    f"{PACKAGES}/gateway/app.py": 10,
    f"{PACKAGES}/finn-0.1.0.dist-info/RECORD": 20,
    f"{PACKAGES}/openai/client.py": 3_000_000,
    f"{PACKAGES}/openai-3.51.0.dist-info/METADATA": 5,
    f"{PACKAGES}/six.py": 7,
    "usr/local/lib/python3.13/os.py": 40,
    "usr/lib/python3.13/os.py": 40,
    "usr/lib/git-core/git": 50,
    "usr/lib/x86_64-linux-gnu/libc.so.6": 60,
    "usr/bin/ls": 70,
    "etc/passwd": 80,
}
CONFIG = {
    "config": {"Hostname": "0123456789ab", "User": "10001"},
    "container": "0123",
    "container_config": {},
    "parent": "sha256:01",
    "history": [{"created_by": "COPY", "comment": "FROM 0123"}],
    "rootfs": {"diff_ids": ["sha256:1"]},
}


def tar(files: dict[str, bytes]) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return data.getvalue()


def archive(path: Path, config: dict[str, Any]) -> Path:
    """An image of one layer, as `docker save` writes it."""
    layer = tar({name: bytes(size) for name, size in FILES.items()})
    manifest = [{"Config": "config.json", "RepoTags": ["localhost/finn:latest"], "Layers": ["layer.tar"]}]
    parts = {"manifest.json": json.dumps(manifest), "config.json": json.dumps(config)}
    path.write_bytes(tar({"layer.tar": layer, **{name: text.encode() for name, text in parts.items()}}))
    return path


def test_every_byte_is_told_in_one_part(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert weigh.main(archive(tmp_path / "image.tar", CONFIG)) == 0
    _, _, parts = weigh.weighed(tmp_path / "image.tar", "layer.tar")
    assert parts == {
        "finn": 30,
        "  openai": 3_000_005,
        "  six": 7,
        "Python": 80,
        "git": 50,
        "libraries": 60,
        "commands": 70,
        "Debian's books and data": 80,
    }
    said = capsys.readouterr().out
    assert "packages                                      3.0\n  openai" in said
    assert "six" not in said


@pytest.mark.parametrize("bound", ["MOST_MB", "MOST_SENT_MB"])
def test_an_image_that_is_too_heavy_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], bound: str
) -> None:
    monkeypatch.setattr(weigh, bound, 0)
    assert weigh.main(archive(tmp_path / "image.tar", CONFIG)) == 1
    assert "Too heavy" in capsys.readouterr().out


def test_two_builds_of_the_same_are_settled_to_the_same_image(tmp_path: Path) -> None:
    other = {
        **CONFIG,
        "config": {"Hostname": "ba9876543210", "User": "10001"},
        "container": "9876",
        "parent": "sha256:98",
        "history": [{"created_by": "COPY", "comment": "FROM 9876"}],
    }
    for name, config in (("one", CONFIG), ("other", other)):
        settle.main(archive(tmp_path / f"{name}.built", config), tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


def test_what_an_image_holds_and_how_it_is_run_is_left_as_it_is(tmp_path: Path) -> None:
    settle.main(archive(tmp_path / "built", CONFIG), tmp_path / "settled")
    assert weigh.weighed(tmp_path / "settled", "layer.tar") == weigh.weighed(tmp_path / "built", "layer.tar")
    with tarfile.open(tmp_path / "settled") as settled:
        (image,) = json.load(settled.extractfile("manifest.json"))  # type: ignore[arg-type]
        config = json.load(settled.extractfile(image["Config"]))  # type: ignore[arg-type]
    assert image["RepoTags"] == ["localhost/finn:latest"]
    assert config == {
        "config": {"Hostname": "", "User": "10001"},
        "history": [{"created_by": "COPY"}],
        "rootfs": CONFIG["rootfs"],
    }
