"""What a model call cost, by the price list that genai-prices carries. It asks nobody."""

from datetime import UTC, datetime
from decimal import Decimal

from genai_prices import Usage as Counted
from genai_prices import calc_price
from genai_prices.types import ModelPrice

from agent.models.catalog import Wire
from persistence.events import Cost, Usage


def cost(usage: Usage, wire: Wire, name: str, now: float) -> Cost | None:
    """US dollars, or None where the list does not know the model. What the caches cost is told apart."""
    counted = Counted(
        input_tokens=usage.input + usage.cacheRead + usage.cacheWrite,
        output_tokens=usage.output,
        cache_read_tokens=usage.cacheRead,
        cache_write_tokens=usage.cacheWrite,
    )
    try:
        price = calc_price(counted, name, provider_id=wire, genai_request_timestamp=datetime.fromtimestamp(now, UTC))
    except LookupError:
        return None
    listed = price.model_price
    read = _part(ModelPrice(input_mtok=Decimal(0), cache_read_mtok=listed.cache_read_mtok), counted)
    written = _part(ModelPrice(input_mtok=Decimal(0), cache_write_mtok=listed.cache_write_mtok), counted)
    return Cost(
        input=float(price.input_price - read - written),
        output=float(price.output_price),
        cacheRead=float(read),
        cacheWrite=float(written),
        total=float(price.total_price),
    )


def _part(price: ModelPrice, counted: Counted) -> Decimal:
    return price.calc_price(counted)["input_price"]
