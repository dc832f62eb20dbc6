"""Where a wire leads, as plain values."""

from dataclasses import dataclass, field
from urllib.parse import urlsplit

from agent.models.catalog import VENDORS, Limits, Vendor, Wire


@dataclass(frozen=True)
class Provider:
    """Everything that a call needs to know. Without `base_url` it is the vendor itself."""

    wire: Wire
    name: str
    base_url: str | None
    key: str | None = field(repr=False)
    limits: Limits
    idle_s: float  #: without a byte for so long, a stream counts as stalled

    @property
    def vendor(self) -> Vendor:
        """Whose wire it is, whoever answers on it."""
        return VENDORS[self.wire]

    @property
    def address(self) -> str:
        """Where requests go."""
        return self.base_url or self.vendor.address

    @property
    def is_vendor(self) -> bool:
        """Whether the vendor itself answers, whose prices and quirks are known."""
        return self.base_url is None

    @property
    def place(self) -> str:
        """Who answers. Signed thinking is good only there, so another server behind the same wire has another name."""
        url = urlsplit(self.base_url or "")
        return ":".join([self.wire, *filter(None, (url.hostname, str(url.port or "")))])
