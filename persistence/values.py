"""What every floor calls the data that it passes on. Needs nothing, so that naming a type costs no import."""

from typing import Any

Json = Any  #: what a JSON text can hold
