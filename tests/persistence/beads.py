"""Beads to try things on."""

import json
import random
from collections.abc import Mapping, Sequence
from typing import Any

from persistence.bead import Bead, made
from persistence.changes import Asking, create, update
from persistence.events import OWNER, TOOL, By
from persistence.rfc3339 import SECOND, rfc3339

NOW = 1_795_000_000 * SECOND
HOUR = 3600 * SECOND

#: Lines of real files that br wrote, and the ids that it gave.
REAL = (
    '{"id":"bd-104i","title":"T-2.7: Unit tests: Admin API (auth, mode change, audit-first)","status":"closed",'
    '"priority":1,"issue_type":"task","created_at":"2026-02-26T04:23:04.550522163Z","created_by":"merlin",'
    '"updated_at":"2026-02-26T05:42:31.996888771Z","closed_at":"2026-02-26T05:42:31.996826376Z","close_reason":"done",'
    '"source_repo":".","compaction_level":0,"original_size":0,"labels":["epic:bd-11dh","sprint:2"],"dependencies":['
    '{"issue_id":"bd-104i","depends_on_id":"bd-1avu","type":"blocks","created_at":"2026-02-26T05:06:45.847622928Z",'
    '"created_by":"merlin","metadata":"{}","thread_id":""},{"issue_id":"bd-104i","depends_on_id":"bd-22lm",'
    '"type":"blocks","created_at":"2026-02-26T05:06:44.726584522Z","created_by":"merlin","metadata":"{}",'
    '"thread_id":""}]}',
    '{"id":"bd-10fz","title":"T-5.6: Health endpoint Goodhart + audit + relayer fields","status":"closed","priority":2,'
    '"issue_type":"task","created_at":"2026-02-26T00:53:30.714610563Z","created_by":"merlin",'
    '"updated_at":"2026-02-26T02:34:38.948618557Z","closed_at":"2026-02-26T02:34:38.948560784Z",'
    '"close_reason":"Health endpoint updated: goodhart, audit, relayer fields (AC20)","source_repo":".",'
    '"compaction_level":0,"original_size":0,"labels":["epic:bd-2r12","size:S","sprint:142","task:T-5-6"]}',
    '{"id":"bd-113","title":"Issue #190: Add --local flag and auto_push config to /run","status":"open","priority":1,'
    '"issue_type":"epic","created_at":"2026-02-05T16:23:36.792356Z","created_by":"gumi",'
    '"updated_at":"2026-06-01T21:08:04.107047Z","source_repo":".","compaction_level":0,"original_size":0,'
    '"labels":["artifact:product-spec","enhancement","issue:190","workstream:delivery"]}',
    '{"id":"bd-11dh","title":"Sprint 2: Admin API + Dixie Transport + Graduation Metrics (G145)","status":"open",'
    '"priority":0,"issue_type":"epic","created_at":"2026-02-26T04:19:55.314681411Z","created_by":"merlin",'
    '"updated_at":"2026-02-26T04:19:56.377212372Z","source_repo":".","compaction_level":0,"original_size":0,'
    '"labels":["sprint:2"]}',
    '{"id":"bd-124","title":"T-C.4: finnNFT E2E Demo Test","status":"open","priority":1,"issue_type":"task",'
    '"created_at":"2026-02-09T12:42:42.542953822Z","created_by":"merlin","updated_at":"2026-06-01T21:08:04.219114Z",'
    '"source_repo":".","compaction_level":0,"original_size":0,"labels":["cycle:009","sprint:C","task:T-C-4"],'
    '"dependencies":[{"issue_id":"bd-124","depends_on_id":"bd-3ro","type":"blocks",'
    '"created_at":"2026-05-04T00:22:30Z","created_by":"import","metadata":"{}","thread_id":""}]}',
    '{"id":"beads-1","title":"Ünïcödé — “quotes” \\"and\\" \\\\ \\n tab\\t","status":"open","priority":0,'
    '"issue_type":"task","created_at":"2026-01-01T00:00:00Z","updated_at":"2026-01-01T00:00:00.123Z",'
    '"source_repo":"loa-finn","source_repo_path":"/Users/x","agent_context":"{}","compaction_level":0,'
    '"original_size":0,"spec_id":7,"metadata":{"b":1,"a":[1.10,2e3]},"comments":[{"id":354,"issue_id":"beads-1",'
    '"author":"pane6","text":"seen","created_at":"2026-04-22T23:38:29Z"}]}',
)


def by_id(*beads: Bead) -> dict[str, Bead]:
    return {bead.id: bead for bead in beads}


def bead(name: str, at: int = NOW, **fields: Any) -> Bead:
    """A bead as a file may have it."""
    title = fields.pop("title", f"the bead {name}")
    blocks = fields.pop("blocks", ())
    edges = [*(("blocks", one) for one in blocks), *fields.pop("edges", ())]
    deps = [{"issue_id": name, "depends_on_id": to, "type": kind, "created_at": rfc3339(NOW)} for kind, to in edges]
    data = {"id": name, "title": title, "priority": 2, "created_at": rfc3339(min(NOW, at)), "updated_at": rfc3339(at)}
    return made({**data, **fields, "dependencies": sorted(deps, key=lambda edge: edge["depends_on_id"])})


def asking(now: int = NOW, by: By = OWNER, name: str = "") -> Asking:
    return Asking(by, now, name)


def new(board: Mapping[str, Bead], now: int = NOW, by: By = OWNER, **fields: Any) -> Bead:
    return create(board, {"title": "a bead", **fields}, asking(now, by))


def changed(one: Bead, now: int = NOW + SECOND, by: By = OWNER, *others: Bead, **fields: Any) -> Bead:
    return update(by_id(one, *others), one.id, fields, asking(now, by))


def by_tool(now: int = NOW) -> Asking:
    return asking(now, TOOL, "agent")


def some_text(rng: random.Random, most: int = 12) -> str:
    return "".join(rng.choice('abc é"\\\n\t—😀') for _ in range(rng.randint(1, most)))


def data_of(line: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(line)
    return found


def ids(found: Sequence[Bead]) -> list[str]:
    return [one.id for one in found]
