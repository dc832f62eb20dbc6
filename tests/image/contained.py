"""A finn in a container of the built image, to be tested like every other one (tests/end_to_end/finn.py).

    it = contained(yard, folder, replies)      not yet started
    it.start()                                 as uid 10001, root read-only, without capabilities
    it.inside("python", "-c", …)               a command beside it, in the same container

Its /data is `folder/data`; the script of its model lies in a folder of its own, which is not there for any other finn.
"""

import json
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.end_to_end.finn import NONE, Finn
from tests.image.yard import IMAGE, PODMAN, Yard

USER = 10001
TOKEN = "0123456789abcdef" * 4
LIMITS = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024")  #: podman's own may be above what root may set
TIGHT = ("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", *LIMITS)


class Contained(Finn):
    """A Finn whose process is a container."""

    def __init__(self, yard: Yard, folder: Path, settings: Mapping[str, str], options: Sequence[str]) -> None:
        super().__init__(folder, settings)
        self._yard = yard
        self._options = options
        self._name = f"finn-{os.urandom(6).hex()}"
        self.renew()

    def renew(self) -> None:
        """An empty /data."""
        self.data.mkdir(mode=0o700)
        os.chown(self.data, USER, USER)

    def serving(self) -> Sequence[str | Path]:
        name = ("--name", self._name, "--network", "host")
        return (*PODMAN, "run", "--rm", *name, *self._arguments(), "serve", "--port", str(self.port))

    def _arguments(self) -> Sequence[str]:
        settings = (part for name, value in self._settings.items() for part in ("--env", f"{name}={value}"))
        mounts = ("--volume", f"{self.data}:/data", "--volume", f"{self.folder / 'model'}:/model")
        return ("--no-healthcheck", *self._options, *mounts, *settings, IMAGE)

    def environment(self) -> dict[str, str]:
        return self._yard.environment()

    def send_signal(self, number: signal.Signals) -> None:
        self._yard.podman("kill", "--signal", number.name, self._name)

    def kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._yard.podman("kill", "--signal", "KILL", self._name, check=False)
        if self._process is not None:
            self.wait()

    def command(self, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        """Another finn command, in a container of its own."""
        extra = [part for name, value in settings.items() for part in ("--env", f"{name}={value}")]
        return self._yard.podman(
            "run", "--rm", "--network", "none", *extra, *self._arguments(), *arguments, check=False
        )

    def inside(self, *command: str, env: Mapping[str, str] = NONE) -> subprocess.CompletedProcess[str]:
        """A command in the running container."""
        extra = [part for name, value in env.items() for part in ("--env", f"{name}={value}")]
        return self._yard.podman("exec", *extra, self._name, *command, check=False)

    def changed(self) -> list[str]:
        """What the container has written to its own root."""
        return self._yard.podman("diff", self._name).stdout.splitlines()

    def sent(self) -> list[Any]:
        path = self.folder / "model" / "sent.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def contained(
    yard: Yard, folder: Path, replies: Sequence[object], options: Sequence[str] = TIGHT, **settings: str
) -> Contained:
    """One on loopback, whose model says what `replies` say."""
    model = folder / "model"
    model.mkdir(parents=True)
    script = model / "script.json"
    script.write_text(json.dumps({"log": "sent.jsonl", "replies": [*replies], "loop": True}))
    for path in (model, script):
        os.chown(path, USER, USER)
    own = {"FINN_HOST": "127.0.0.1", "FINN_TOKEN": TOKEN, "FINN_MODEL": "scripted:/model/script.json"}
    return Contained(yard, folder, {**own, **settings}, options)
