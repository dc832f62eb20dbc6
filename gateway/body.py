"""How the bytes of a request, or the text of a frame, become a value that can be trusted to be one."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import parse_qsl

from starlette.requests import Request

from gateway.problem import Refused
from persistence.values import DEPTH, Json, deeper_than, is_text

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

MAX_BODY = 2**20  #: bytes of a request
MAX_FIELDS = 32  #: of a form
SHOWN_ERRORS = 3  #: of a body's faults, how many are told at once

Model = TypeVar("Model", bound="BaseModel")


def parse_json(data: bytes) -> Json:
    """The value of a JSON text that comes from outside. Raises Refused `invalid_json`."""
    try:
        text = data.decode()
        value = json.loads(text, parse_constant=_no_such_number)
    except UnicodeDecodeError as error:
        raise invalid_json(f"byte {error.start} is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise invalid_json(f"{error.msg} at line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        raise invalid_json(f"nested deeper than {DEPTH}") from None
    except ValueError as error:  # a number of more digits than Python converts
        raise invalid_json(str(error).partition(";")[0]) from None
    if deeper_than(value, DEPTH):
        raise invalid_json(f"nested deeper than {DEPTH}")
    if "\\ud" in text.lower() and not is_text(value):
        raise invalid_json("half of a surrogate pair is not a character")
    return value


def invalid_json(what: str) -> Refused:
    return Refused("invalid_json", f"the body is not JSON that finn takes: {what}", hint="send one JSON value in UTF-8")


def _no_such_number(name: str) -> None:
    raise invalid_json(f"{name} is not a JSON number")


def validate(model: type[Model], value: Json) -> Model:
    """`value` as a model. Raises Refused `invalid_body`, which names the fields and repeats none of what they held."""
    from pydantic import ValidationError  # imported on use: a start to the first answer need not pay for it

    try:
        return model.model_validate(value)
    except ValidationError as error:
        fields = ", ".join(model.model_fields)
        raise Refused("invalid_body", faults(error, "body"), hint=f"the fields are {fields}") from None


def faults(error: "ValidationError", whole: str) -> str:
    """The first faults with their places; `whole` is what the outermost place is called."""
    told = error.errors(include_url=False, include_context=False, include_input=False)[:SHOWN_ERRORS]
    return "; ".join(f"{'.'.join(str(step)[:64] for step in one['loc']) or whole}: {one['msg']}" for one in told)


async def read_model(request: Request, model: type[Model]) -> Model:
    """The JSON body as a model; no body at all counts as `{}`.

    Raises Refused (`unsupported_media_type`, `invalid_json`, `invalid_body`). The size was limited before it is read.
    """
    body = await request.body()
    if not body:
        return validate(model, {})
    require_media_type(request, "application/json")
    return validate(model, parse_json(body))


async def read_form(request: Request) -> Mapping[str, str]:
    """The fields of a plain HTML form. Raises Refused `bad_request`."""
    try:
        return dict(parse_qsl((await request.body()).decode("ascii"), max_num_fields=MAX_FIELDS, errors="strict"))
    except ValueError:
        raise Refused("bad_request", "the body is not a form", hint="send it URL-encoded") from None


def media_type(request: Request) -> str:
    """The Content-Type without its parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def require_media_type(request: Request, wanted: str) -> None:
    if media_type(request) != wanted:
        raise Refused(
            "unsupported_media_type",
            f"the body is {media_type(request)[:64] or 'of no named type'}",
            hint=f"send it with Content-Type: {wanted}",
        )
