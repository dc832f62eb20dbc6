"""`.env.example`: every setting with what it does and its default, made of the table that finn reads.

.venv/bin/python -P -m deploy.example >.env.example
"""

from collections.abc import Iterator

from gateway.settings import SETTINGS, Setting

HEAD = """\
# Every setting of finn, with its default. Take the # away from a line to change it; an empty value says nothing.
# As .env in the data directory finn reads this file itself; systemd and FreeBSD's rc.d read it by a shell, compose and
# docker as --env-file. What several of them read is best written NAME=value, without spaces and quotes.
# Made of gateway/settings.py (python -P -m deploy.example); docs/settings.md tells more.
"""


def example() -> str:
    """The whole file."""
    return HEAD + "".join(line + "\n" for setting in SETTINGS for line in _lines(setting))


def _lines(setting: Setting) -> Iterator[str]:
    shown = f" ({setting.shown})".replace("see below", "see docs/settings.md") if setting.shown else ""
    yield ""
    yield f"# {setting.help}{shown}".replace("`", "")
    yield f"#{setting.name}={setting.default or ''}"


if __name__ == "__main__":
    print(example(), end="")
