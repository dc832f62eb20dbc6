"""/openapi.json: the HTTP surface, as OpenAPI 3.1.

A table of operations, kept beside the routes; a test compares the two.
"""

import re
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from persistence.events import Json


@dataclass(frozen=True)
class Operation:
    """One method of one path. `answers` maps a status to the schema of its JSON, or to None for another body."""

    path: str
    method: str
    scope: str | None
    summary: str
    answers: dict[int, Json]
    query: tuple[str, ...] = ()
    body: Json = None


def _object(**properties: str) -> Json:
    """An object whose fields are JSON types; a `?` behind the type makes the field optional."""
    return {
        "type": "object",
        "properties": {name: {"type": kind.rstrip("?")} for name, kind in properties.items()},
        "required": [name for name, kind in properties.items() if not kind.endswith("?")],
    }


SESSION = _object(
    id="string", title="string", created_at="string", updated_at="string", messages="integer", turn="string?"
)
ENDED = _object(turn="string", seq="integer", reply="string", stop_reason="string", error="object?", usage="object")
LOGIN = {"type": "object", "properties": {"token": {"type": "string"}, "once": {"type": "string"}}}
PAGE = ("limit", "after")

BEAD = _object(
    id="string",
    title="string",
    status="string",
    priority="integer",
    issue_type="string",
    created_at="string",
    updated_at="string",
    description="string?",
    assignee="string?",
    labels="array?",
    dependencies="array?",
    comments="array?",
    dependency_count="integer?",
    dependent_count="integer?",
)
TOKEN = _object(
    id="string",
    name="string",
    scope="string",
    created_at="string",
    expires_at="string?",
    revoked_at="string?",
    state="string",
)
TASK = _object(
    name="string",
    every_s="number",
    state="string",
    failures="integer",
    running="boolean",
    last_run="string?",
    last_error="string?",
    next_run="string",
)
BEADS = {"type": "array", "items": BEAD}
SETTABLE = {
    **dict.fromkeys(("description", "design", "acceptance_criteria", "notes", "status", "issue_type"), "string?"),
    **dict.fromkeys(("assignee", "owner", "due_at", "defer_until", "external_ref", "parent"), "string?"),
    **dict.fromkeys(("priority", "estimated_minutes"), "integer?"),
    **dict.fromkeys(("labels", "dependencies"), "array?"),
}
AMONG = ("status", "type", "priority", "label", "label_any", "assignee", "unassigned", "sort", "limit")

REPORT = _object(version="string", overall="string", summary="object", findings="array", fix="object?")

OPERATIONS: tuple[Operation, ...] = (
    Operation("/livez", "get", None, "Whether the process turns", {200: None}),
    Operation("/readyz", "get", None, "Whether prompts are taken", {200: None}),
    Operation(
        "/health",
        "get",
        None,
        "How finn is; with a token also every check",
        {
            200: _object(
                status="string",
                version="string",
                releaseId="string",
                serviceId="string",
                uptime="number",
                checks="object?",
            )
        },
    ),
    Operation("/metrics", "get", "probe", "Everything that is counted and measured, for Prometheus", {200: None}),
    Operation("/login", "get", None, "The page of a login link", {200: None}, query=("once",)),
    Operation("/login", "post", None, "Begins a browser session", {204: None}, body=LOGIN),
    Operation("/logout", "post", None, "Ends the browser session", {204: None}),
    Operation(
        "/api/sessions",
        "get",
        "read",
        "The sessions, newest first",
        {200: _object(sessions="array", next="string?")},
        query=PAGE,
    ),
    Operation(
        "/api/sessions",
        "post",
        "chat",
        "A new session",
        {201: _object(id="string", title="string", created_at="string", seq="integer")},
        body=_object(title="string?"),
    ),
    Operation("/api/sessions/{session}", "get", "read", "One session", {200: SESSION}),
    Operation("/api/sessions/{session}", "patch", "chat", "Renames it", {200: SESSION}, body=_object(title="string")),
    Operation("/api/sessions/{session}", "delete", "owner", "Hides it; restore undoes that", {204: None}),
    Operation("/api/sessions/{session}/restore", "post", "owner", "Brings a deleted session back", {200: SESSION}),
    Operation(
        "/api/sessions/{session}/messages",
        "get",
        "read",
        "The messages in order: after a cursor, or the last ones before a seq",
        {200: _object(messages="array", next="string?", prev="string?", epoch="integer", seq="integer")},
        query=(*PAGE, "before", "notes"),
    ),
    Operation(
        "/api/sessions/{session}/messages",
        "post",
        "chat",
        "Says something; with ?wait=true answers when the turn has ended. Takes an Idempotency-Key",
        {202: _object(turn="string", seq="integer"), 200: ENDED},
        query=("wait",),
        body=_object(text="string"),
    ),
    Operation(
        "/api/sessions/{session}/stop", "post", "chat", "Ends the running turn", {200: _object(stopped="boolean")}
    ),
    Operation(
        "/api/sessions/{session}/events",
        "get",
        "read",
        "The session as server-sent events; Last-Event-ID or after and epoch resume",
        {200: None},
        query=("after", "epoch"),
    ),
    Operation("/api/sessions/{session}/export", "get", "read", "The session as a file", {200: None}, query=("format",)),
    Operation(
        "/api/beads",
        "get",
        "read",
        "The beads that are not closed, as br lists them",
        {200: BEADS},
        query=(
            *AMONG,
            "id",
            "title_contains",
            "desc_contains",
            "notes_contains",
            "overdue",
            "all",
            "deleted",
            "reverse",
        ),
    ),
    Operation("/api/beads/ready", "get", "read", "The beads that can be worked on", {200: BEADS}, query=AMONG),
    Operation(
        "/api/beads",
        "post",
        "chat",
        "A new bead",
        {201: BEAD},
        body=_object(title="string", **SETTABLE, ephemeral="boolean?", created_by="string?"),
    ),
    Operation("/api/beads/{bead}", "get", "read", "One bead with what is around it", {200: BEAD}),
    Operation(
        "/api/beads/{bead}",
        "patch",
        "chat",
        "Changes a bead in one step; with if_updated_at only as it was read",
        {200: BEAD},
        body=_object(
            title="string?",
            **SETTABLE,
            **dict.fromkeys(("add_labels", "remove_labels", "remove_dependencies"), "array?"),
            **dict.fromkeys(("close_reason", "closed_by_session", "comment", "actor", "if_updated_at"), "string?"),
            claim="boolean?",
        ),
    ),
    Operation("/api/tokens", "get", "owner", "The scoped tokens, without their texts", {200: _object(tokens="array")}),
    Operation(
        "/api/tokens",
        "post",
        "owner",
        "A new scoped token; its text is told this once. expires is a duration like 90d",
        {201: {**TOKEN, "properties": {**TOKEN["properties"], "token": {"type": "string"}}}},
        body=_object(scope="string", name="string?", expires="string?"),
    ),
    Operation("/api/tokens/{token}", "delete", "owner", "Takes a token back: it opens nothing any more", {204: None}),
    Operation(
        "/api/storage",
        "get",
        "read",
        "What is kept where: the tiers, the files and who has them, and what is left out",
        {200: _object(seq="integer", epoch="integer", tiers="array", inventory="array", left_out="array")},
    ),
    Operation("/api/tasks", "get", "read", "How each periodic task stands", {200: _object(tasks="array")}),
    Operation(
        "/api/tasks/{name}/run",
        "post",
        "owner",
        "Runs a task now and answers when it has ended; for one that is left alone this is the probe",
        {200: TASK},
    ),
    Operation("/doctor", "get", "probe", "What is as it should be, and what is not", {200: REPORT}, query=("only",)),
    Operation(
        "/doctor/fix",
        "post",
        "owner",
        "Mends these findings, these categories, or all that can be mended; what it replaces is kept",
        {200: REPORT},
        body=_object(ids="array?", only="array?"),
    ),
    Operation(
        "/doctor/undo",
        "post",
        "owner",
        "Puts back what a fix replaced",
        {200: _object(id="string", restored="array")},
        body=_object(id="string"),
    ),
    Operation("/openapi.json", "get", None, "This description", {200: None}),
)


def document(version: str) -> Json:
    """The whole description."""
    paths: dict[str, dict[str, Json]] = {}
    for one in OPERATIONS:
        paths.setdefault(one.path, {})[one.method] = _operation(one)
    problem = _object(type="string", title="string", status="integer", code="string", detail="string", hint="string")
    return {
        "openapi": "3.1.0",
        "info": {"title": "finn", "version": version, "description": "A persistent agent that one person owns."},
        "paths": paths,
        "components": {
            "schemas": {"Problem": problem},
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "cookie": {"type": "apiKey", "in": "cookie", "name": "finn_session"},
            },
        },
    }


def _operation(one: Operation) -> Json:
    parameters: list[Json] = [{"name": name, "in": "query", "schema": {"type": "string"}} for name in one.query]
    for name in re.findall(r"{(\w+)}", one.path):
        parameters.insert(0, {"name": name, "in": "path", "required": True, "schema": {"type": "string"}})
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        "summary": one.summary,
        **({"parameters": parameters} if parameters else {}),
        **({"requestBody": {"content": {"application/json": {"schema": one.body}}}} if one.body else {}),
        "security": [{"token": []}, {"cookie": []}] if one.scope else [],
        **({"x-scope": one.scope} if one.scope else {}),
        "responses": {
            **{str(status): _answer(schema) for status, schema in one.answers.items()},
            "default": {"description": "what went wrong", "content": problem},
        },
    }


def _answer(schema: Json) -> Json:
    return {"description": "done", **({"content": {"application/json": {"schema": schema}}} if schema else {})}


def openapi_route(version: str) -> BaseRoute:
    """GET /openapi.json."""
    described = document(version)

    async def show(_: Request) -> Response:
        return JSONResponse(described)

    return Route("/openapi.json", show, methods=["GET"])
