"""The model that the settings name, FINN_MODEL and …_API_KEY, and what opens it; nothing is loaded or asked."""

from agent.models import Chosen
from gateway.settings import Settings


def chosen_of(settings: Settings) -> Chosen:
    """What `agent.models.choose` makes the model of."""
    anthropic, openai = settings.anthropic_api_key, settings.openai_api_key
    return Chosen(
        model=settings.model,
        base_url=settings.model_base_url,
        anthropic_key=anthropic.reveal() if anthropic else None,
        openai_key=openai.reveal() if openai else None,
    )
