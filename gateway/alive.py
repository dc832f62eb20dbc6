"""Whether finn lives, as the HEALTHCHECK of its image asks: `python -m gateway.alive` exits 0, or says why not and 1.

It asks /livez, which needs neither store nor model nor token, on this machine and at the port that the settings name.
"""

import sys
from http.client import HTTPConnection, HTTPException

from gateway.settings import Settings, read
from persistence.errors import FinnError

LIMIT_S = 4.0  #: less than HEALTHCHECK gives it, so that the reason is said
HERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where one who listens everywhere is found


def main() -> int:
    try:
        settings = read()
        status = asked(settings)
    except (FinnError, HTTPException, OSError) as error:
        print(f"finn: {error}", file=sys.stderr)
        return 1
    if status == 200:
        return 0
    print(f"finn: /livez answers {status}", file=sys.stderr)
    return 1


def asked(settings: Settings) -> int:
    """The status of /livez. Raises OSError or HTTPException where nothing answers."""
    connection = HTTPConnection(HERE.get(settings.host, settings.host), settings.port, timeout=LIMIT_S)
    try:
        connection.request("GET", "/livez")
        return connection.getresponse().status
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(main())
