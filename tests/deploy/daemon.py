"""A stand-in for FreeBSD's daemon(8), with the options that deploy/freebsd/finn uses.

It goes into the background, starts the command with its output appended to a file, writes both pids, waits for the
end and takes the pid files away again.
"""

import argparse
import os
import subprocess
from pathlib import Path

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for flag in "fcH":
        parser.add_argument(f"-{flag}", action="store_true")
    for option in "pPou":
        parser.add_argument(f"-{option}", required=True)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    if os.fork():
        os._exit(0)
    os.setsid()
    os.chdir("/")
    with open(args.o, "ab") as log:
        child = subprocess.Popen(args.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    Path(args.p).write_text(str(child.pid))
    Path(args.P).write_text(str(os.getpid()))
    os.closerange(0, 3)
    child.wait()
    for path in (args.p, args.P):
        Path(path).unlink(missing_ok=True)
