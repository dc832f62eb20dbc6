from dataclasses import replace

from agent.session import (
    QUEUED_CHARS,
    REQUESTS_KEPT,
    SESSIONS,
    OpenCall,
    Request,
    Running,
    Session,
    Waiting,
    step,
    text_sha,
    title_of,
)
from persistence.events import (
    OWNER,
    AssistantMessage,
    CallFailed,
    ContextCut,
    Cost,
    EntryRecovered,
    Event,
    MessageCheckpointed,
    NoteAdded,
    Problem,
    PromptMode,
    Record,
    SessionCreated,
    SessionDeleted,
    SessionRenamed,
    SessionRestored,
    SteerTaken,
    ToolEnded,
    ToolStarted,
    TurnEnded,
    TurnStarted,
    Usage,
    UserMessage,
)


def record(seq: int, event: Event) -> Record:
    return Record(seq, "", 1000 + seq, 1, 0, "s", OWNER, event.kind, event.v, event, "", b"")


def folded(*events: Event) -> Session:
    session = SESSIONS.initial
    for seq, event in enumerate(events, start=1):
        session = step(session, record(seq, event))
    return session


def said(text: str, turn: str = "t", mode: PromptMode = "prompt") -> UserMessage:
    return UserMessage(turn=turn, parent=None, text=text, request_id=f"r {text[:10]}", mode=mode)


def answered() -> AssistantMessage:
    return AssistantMessage(
        turn="t", parent="1-3", content=(), api="a", provider="p", model="m", usage=Usage(), stop_reason="stop"
    )


def request(text: str, turn: str, seq: int) -> Request:
    return Request(f"r {text[:10]}", turn, seq, text_sha(text))


SPENT = Usage(input=3, totalTokens=3, cost=Cost(total=0.5))
STORY: tuple[tuple[Event, Session], ...] = (
    (
        SessionCreated(title=""),
        Session(created_at=1001, updated_at=1001, created_seq=1),
    ),
    (
        said("go  on\nplease"),
        Session(
            title="go on please",
            created_at=1001,
            updated_at=1002,
            created_seq=1,
            messages=1,
            waiting=(Waiting("1-2", "t", "prompt", "r go  on\nple", "go  on\nplease"),),
            requests=(request("go  on\nplease", "t", 2),),
        ),
    ),
    (
        TurnStarted(turn="t", entry="1-2", parent=None),
        Session(
            title="go on please",
            created_at=1001,
            updated_at=1003,
            created_seq=1,
            messages=1,
            leaf="1-2",
            running=Running("t", "1-2"),
            requests=(request("go  on\nplease", "t", 2),),
        ),
    ),
)


def test_a_prompt_waits_until_its_turn_begins_and_gives_the_session_its_title() -> None:
    session = SESSIONS.initial
    for seq, (event, expected) in enumerate(STORY, start=1):
        session = step(session, record(seq, event))
        assert session == expected


def test_a_turn_is_known_with_its_open_calls_and_its_last_checkpoint() -> None:
    begun = folded(*(event for event, _ in STORY))
    running = [
        (MessageCheckpointed(turn="t", parent="1-2", text="so"), Running("t", "1-2", (), 4), "1-2", 1),
        (
            CallFailed(turn="t", attempt=1, error=Problem(code="c", message="m"), retry_in_s=1),
            Running("t", "1-2"),
            "1-2",
            1,
        ),
        (MessageCheckpointed(turn="t", parent="1-2", text="so"), Running("t", "1-2", (), 6), "1-2", 1),
        (answered(), Running("t", "1-2"), "1-7", 2),
        (ToolStarted(turn="t", call="a", name="ls", args={}), Running("t", "1-2", (OpenCall("a", "ls"),)), "1-7", 2),
        (
            ToolStarted(turn="t", call="b", name="ls", args={}),
            Running("t", "1-2", (OpenCall("a", "ls"), OpenCall("b", "ls"))),
            "1-7",
            2,
        ),
        (
            ToolEnded(turn="t", parent="1-7", call="a", name="ls", result=""),
            Running("t", "1-2", (OpenCall("b", "ls"),)),
            "1-10",
            3,
        ),
        (NoteAdded(turn="t", parent="1-10", text="n"), Running("t", "1-2", (OpenCall("b", "ls"),)), "1-11", 3),
        (ToolEnded(turn="t", parent="1-11", call="b", name="ls", result=""), Running("t", "1-2"), "1-12", 4),
        (TurnEnded(turn="t", stop_reason="stop", usage=SPENT), None, "1-12", 4),
    ]
    session = begun
    for seq, (event, run, leaf, messages) in enumerate(running, start=4):
        session = step(session, record(seq, event))
        assert (session.running, session.leaf, session.messages) == (run, leaf, messages), event
    assert session == replace(begun, running=None, leaf="1-12", messages=4, usage=SPENT, updated_at=1013)


def test_what_waits_stays_in_order_and_a_steering_message_leaves_it_when_it_is_heard() -> None:
    session = folded(said("one", "t1"), said("two", "t1", "steer"), said("x" * 500, "t2"))
    assert [(one.entry, one.mode) for one in session.waiting] == [
        ("1-1", "prompt"),
        ("1-2", "steer"),
        ("1-3", "prompt"),
    ]
    assert session.waiting[2].text == "x" * QUEUED_CHARS
    session = step(session, record(4, TurnStarted(turn="t1", entry="1-1", parent=None)))
    assert [one.entry for one in session.waiting] == ["1-2", "1-3"]
    session = step(session, record(5, SteerTaken(turn="t1", entry="1-2", parent="1-1")))
    assert [one.entry for one in session.waiting] == ["1-3"]
    assert session.leaf == "1-2"


def test_the_last_thousand_request_ids_are_remembered() -> None:
    session = folded(*(said(f"{n}") for n in range(REQUESTS_KEPT + 5)))
    assert len(session.requests) == REQUESTS_KEPT
    assert session.request("r 4") is None
    assert session.request("r 5") == request("5", "t", 6)
    assert session.request(f"r {REQUESTS_KEPT + 4}") is not None
    assert text_sha("5") != text_sha("6")


def test_of_two_prompts_under_one_id_the_newer_counts() -> None:
    assert folded(said("one"), said("one", "t2")).request("r one") == request("one", "t2", 2)


def test_usage_adds_up_over_turns_and_a_cost_nobody_knows_counts_as_nothing() -> None:
    ends = [TurnEnded(turn="t", stop_reason="stop", usage=one) for one in (SPENT, Usage(input=1), SPENT)]
    assert folded(*ends).usage == Usage(input=7, totalTokens=6, cost=Cost(total=1.0))
    assert folded(TurnEnded(turn="t", stop_reason="stop", usage=Usage(input=1))).usage.cost is None


def test_a_session_is_renamed_hidden_and_brought_back() -> None:
    session = folded(SessionCreated(title="a"), SessionRenamed(title="b"), said("no title"))
    assert (session.title, session.exists) == ("b", True)
    session = step(session, record(4, SessionDeleted()))
    assert not session.exists
    assert step(session, record(5, SessionRestored())).exists
    assert not SESSIONS.initial.exists


def test_a_cut_of_the_context_is_remembered() -> None:
    assert folded(ContextCut(turn="t", first_kept="1-9", left_out=3)).context_from == "1-9"


def test_a_title_is_one_line_of_sixty_characters_at_most() -> None:
    assert title_of("  a\n\tb ") == "a b"
    assert title_of("x" * 60) == "x" * 60
    assert title_of("x" * 50 + " " + "y" * 20) == "x" * 50 + " " + "y" * 8 + "…"


def test_the_state_of_a_session_survives_a_snapshot() -> None:
    session = folded(*(event for event, _ in STORY), ToolStarted(turn="t", call="a", name="ls", args={}), said("two"))
    assert SESSIONS.load(SESSIONS.dump(session)) == session


def test_where_the_record_of_its_creation_is_lost_a_session_begins_with_the_next() -> None:
    session = folded(said("Hello there"))
    assert session.exists
    assert (session.title, session.created_seq, session.created_at) == ("Hello there", 1, 1001)


def test_where_the_record_of_its_start_is_lost_a_turn_is_known_by_what_follows_and_not_run_again() -> None:
    waiting = folded(SessionCreated(title=""), said("a"), said("b", turn="next"))
    assert [one.turn for one in waiting.waiting] == ["t", "next"]
    running = step(waiting, record(5, answered()))
    assert [one.turn for one in running.waiting] == ["next"]
    assert running.running == Running("t", "1-2")
    over = step(running, record(6, TurnEnded(turn="t", stop_reason="stop", usage=Usage())))
    assert over.running is None
    assert [one.turn for one in over.waiting] == ["next"]


def recovered(event: Event) -> EntryRecovered:
    data = event.model_dump(mode="json")
    return EntryRecovered(origin="9-9", type=event.kind, version=event.v, data=data, at=7, by=OWNER, parent="1-1")


def test_what_is_recovered_is_counted_and_changes_nothing_else() -> None:
    before = folded(SessionCreated(title="t"), said("one"), TurnStarted(turn="t", entry="1-2", parent=None))
    for event, counted in (
        (said("lost"), 1),
        (answered(), 1),
        (TurnEnded(turn="x", stop_reason="stop", usage=SPENT), 0),
        (SessionRenamed(title="lost"), 0),
        (SessionDeleted(), 0),
    ):
        after = step(before, record(9, recovered(event)))
        assert after == replace(before, messages=before.messages + counted, updated_at=1009)


def test_a_session_that_is_only_recovered_has_the_title_it_had() -> None:
    assert folded(recovered(SessionCreated(title="t"))).title == "t"
    untitled = folded(recovered(SessionCreated(title="")), recovered(said("go  on")))
    assert (untitled.title, untitled.messages, untitled.exists, untitled.waiting) == ("go on", 1, True, ())
