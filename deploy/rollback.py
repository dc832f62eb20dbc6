"""`scripts/rollback URL --platform P --to RELEASE`: puts the previous release back, and sees that it works.

    the platform's commands, one after the other ─▶ the smoke test, for RELEASE

A platform is a line of PLATFORMS: its commands, with {to} for the release, {image} for its image, {app} for the name
that the platform knows finn by, {at} for a folder. 0 where the previous release works again, 1 with the one reason why
not, 2 for a command line nobody can act on. --dry-run prints the commands and runs none.
"""

import argparse
import shlex
import string
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from deploy.smoke import Failed, add_place, client_of, run, seconds, smoke
from persistence.errors import UsageError

ROOT = Path(__file__).parent.parent
TAIL_LINES = 5  #: of what a command said before it failed
COMMAND_S = 1200.0  #: for one command; a platform that takes longer has stopped answering

PREVIOUS = "dist/previous"  #: where the previous release's files are taken out to, below the checkout
EDGE = f"{PREVIOUS}/deploy/cloudflare"
ROLLOUT = "--containers-rollout=immediate"

Command = tuple[str, ...]

PLATFORMS: Mapping[str, tuple[Command, ...]] = MappingProxyType(
    {
        "fly": (
            ("flyctl", "deploy", "--app", "{app}", "--config", "deploy/fly/fly.toml", "--image", "{image}", "--yes"),
        ),
        # Worker and image belong together, and `wrangler rollback` knows of the Worker alone: both are deployed again.
        "cloudflare": (
            ("rm", "-rf", PREVIOUS),
            ("git", "worktree", "add", "--force", "--detach", PREVIOUS, "{to}"),
            ("npm", "ci", "--prefix", EDGE, "--no-audit", "--no-fund"),
            ("sed", "-i", "-E", r's|("image": *)"[^"]*"|\1"{image}"|', f"{EDGE}/wrangler.jsonc"),
            ("npx", "--no-install", "--prefix", EDGE, "wrangler", "deploy", "--cwd", EDGE, ROLLOUT),
            ("git", "worktree", "remove", "--force", PREVIOUS),
        ),
        # A pod that never became ready is not replaced by itself: a StatefulSet waits for it for ever.
        "kubernetes": (
            ("kubectl", "set", "image", "statefulset/{app}", "finn={image}"),
            ("kubectl", "delete", "pod", "{app}-0", "--ignore-not-found"),
            ("kubectl", "rollout", "status", "statefulset/{app}", "--timeout=5m"),
        ),
        "compose": (("env", "FINN_IMAGE={image}", "docker", "compose", "up", "--detach", "--no-build"),),
        "systemd": (("ln", "-sfn", "{at}/{to}", "{at}/current"), ("systemctl", "restart", "{app}")),
        "local": (("ln", "-sfn", "{at}/{to}", "{at}/current"), ("{at}/restart",)),
    }
)
IMAGES = MappingProxyType({"fly": "registry.fly.io/{app}:{to}"})  #: where --image does not say; the tag is the release


def commands(platform: str, values: Mapping[str, str]) -> tuple[Command, ...]:
    """What is to be run. Raises UsageError for an option that this platform needs."""
    wanted = PLATFORMS[platform]
    needed = {
        name for command in wanted for part in command for _, name, _, _ in string.Formatter().parse(part) if name
    }
    missing = sorted(needed - values.keys())
    if missing:
        raise UsageError(f"--{missing[0]} is not said", hint=f"a rollback on {platform} needs it")
    return tuple(tuple(part.format_map(values) for part in command) for command in wanted)


def carry_out(command: Command) -> None:
    """Runs one command in the checkout. Raises Failed with the end of what it said."""
    print(f"rollback: {shlex.join(command)}", flush=True)
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=COMMAND_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failed(f"{command[0]} could not be run: {error}", hint="nothing was changed by it") from error
    if done.returncode:
        said = " ".join((done.stdout + done.stderr).strip().splitlines()[-TAIL_LINES:])
        raise Failed(f"{shlex.join(command)} failed with {done.returncode}: {said}", hint="the broken release is there")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/rollback",
        description="Puts the previous release back, and sees that it works.",
        epilog="example: scripts/rollback https://finn.fly.dev --platform fly --app finn --to 4f2a91c",
    )
    add_place(parser)
    parser.add_argument("--platform", required=True, choices=tuple(PLATFORMS), help="where finn runs")
    parser.add_argument("--to", required=True, metavar="RELEASE", help="what /health said before the deployment")
    parser.add_argument("--image", metavar="REF", help="the image of that release (fly: registry.fly.io/APP:RELEASE)")
    parser.add_argument("--app", default="finn", metavar="NAME", help="what the platform calls it (finn)")
    parser.add_argument(
        "--at", metavar="DIR", help="systemd, local: the folder of the releases and of the link `current`"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the commands and run none")
    args = parser.parse_args(argv)

    def put_back() -> None:
        said = {"to": args.to, "app": args.app, "at": args.at, "image": args.image or IMAGES.get(args.platform)}
        values = {name: value for name, value in said.items() if value is not None}
        if "image" in values:
            values["image"] = values["image"].format_map(values)
        todo = commands(args.platform, values)
        if args.dry_run:
            print("\n".join(shlex.join(command) for command in todo))
            return
        patience_s = seconds(args.timeout)
        for command in todo:
            carry_out(command)
        print(f"rollback: {smoke(client_of(args), args.to, patience_s)}")

    return run("rollback", put_back)


if __name__ == "__main__":
    sys.exit(main())
