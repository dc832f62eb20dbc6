"""The objects' bytes: read back as they were written, and damage of any byte is seen."""

import json
from dataclasses import asdict, replace
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persistence.errors import Damaged, Newer
from persistence.layout import (
    FORMAT,
    NOTHING,
    Header,
    Manifest,
    Seg,
    Snap,
    blob_key,
    bytes_of,
    chunk_key,
    decode_hint,
    decode_knock,
    decode_manifest,
    decode_object,
    digest,
    encode_hint,
    encode_knock,
    encode_manifest,
    encode_object,
    log_key,
    manifest_key,
    number,
    orphan,
    orphan_key,
    seg_key,
    snap_key,
)
from persistence.snapshot import canonical

SHA = "ab" * 32
HEADER = Header(7, 3, "01WRITER", SHA, 41, 42, NOTHING, SHA, "00ff")
MANIFEST = Manifest(
    m=5,
    epoch=3,
    writer="01WRITER",
    release="1.0",
    nonce="00ff",
    previous=SHA,
    snap=Snap(snap_key(30, SHA), SHA, 100, 30, SHA),
    segs=(Seg(seg_key(20, SHA), SHA, 1000, 20, 40, NOTHING, SHA),),
    log_from=7,
    log_previous=SHA,
    log_seq=40,
    log_chain=SHA,
    gc_boundary=2,
    archived="c0ffee",
)


@given(st.integers(1, 10**12 - 1), st.from_regex(r"[0-9A-Za-z_-]{1,64}", fullmatch=True))
def test_a_key_is_read_as_it_was_made(n: int, writer: str) -> None:
    assert (number(log_key(n), "log"), number(manifest_key(n), "manifest")) == (n, n)
    assert (digest(chunk_key(SHA), "chunk"), digest(blob_key(SHA), "blob")) == (SHA, SHA)
    assert orphan(orphan_key(7, writer, n)) == (7, writer, n)


def test_a_key_of_another_shape_is_nobodys() -> None:
    assert [number(key, "log") for key in ("log/1.wal", "log/notes.txt", manifest_key(1))] == [None] * 3
    assert [number(key, "manifest") for key in ("manifest/HINT", f"manifest/{'٣' * 12}.json")] == [None] * 2
    assert [digest(key, "blob") for key in ("blob/abc", "blob/" + "g" * 64, chunk_key(SHA))] == [None] * 3
    assert [orphan(key) for key in ("orphans/1-w/x.wal", "orphans/1-a/b/0000000000000001.wal")] == [None] * 2


def forged(body: dict[str, object]) -> bytes:
    """A manifest or a header with a right hash, whatever it says."""
    body = {**body, "self_sha256": ""}
    return canonical({**body, "self_sha256": sha256(canonical(body)).hexdigest()})


def test_a_log_object_is_read_as_it_was_written() -> None:
    one = encode_object(HEADER, b"frames\n")
    assert decode_object(bytes_of(one), "log/7") == one
    assert one.sha256 == sha256(bytes_of(one)).hexdigest()


def test_a_manifest_is_read_as_it_was_written() -> None:
    sealed, data = encode_manifest(MANIFEST)
    assert decode_manifest(data, "manifest/5") == sealed
    assert replace(sealed, self_sha256="") == MANIFEST


@pytest.mark.parametrize("mask", [0x01, 0x20, 0x80])
def test_every_flipped_byte_of_a_log_object_is_seen(mask: int) -> None:
    data = bytes_of(encode_object(HEADER, b"some\nframes\n"))
    for at in range(len(data)):
        with pytest.raises(Damaged):
            decode_object(data[:at] + bytes([data[at] ^ mask]) + data[at + 1 :], "log/7")


@pytest.mark.parametrize("mask", [0x01, 0x20, 0x80])
def test_every_flipped_byte_of_a_manifest_is_seen(mask: int) -> None:
    data = encode_manifest(MANIFEST)[1]
    for at in range(len(data)):
        with pytest.raises(Damaged):
            decode_manifest(data[:at] + bytes([data[at] ^ mask]) + data[at + 1 :], "manifest/5")


def test_every_shortened_or_lengthened_object_is_seen() -> None:
    for decode, data in (
        (decode_object, bytes_of(encode_object(HEADER, b"frames\n"))),
        (decode_manifest, encode_manifest(MANIFEST)[1]),
    ):
        for broken in [*(data[:at] for at in range(len(data))), data + b"\n", data + data]:
            with pytest.raises(Damaged):
                decode(broken, "key")


@given(st.binary(max_size=200))
def test_bytes_of_anything_are_damaged_and_nothing_worse(data: bytes) -> None:
    with pytest.raises(Damaged):
        decode_object(data, "log/1")
    with pytest.raises(Damaged):
        decode_manifest(data, "manifest/1")
    decode_hint(data)
    decode_knock(data)


def test_what_a_later_release_wrote_is_newer_and_not_damaged() -> None:
    manifest = forged({"v": FORMAT + 1, "m": 5, "shape": "other"})
    with pytest.raises(Newer):
        decode_manifest(manifest, "manifest/5")
    with pytest.raises(Newer):
        decode_object(forged({"v": FORMAT + 1, "n": 7}) + b"\nbody in another form", "log/7")
    with pytest.raises(Damaged):
        decode_manifest(manifest.replace(b"other", b"othes"), "manifest/5")


@pytest.mark.parametrize(
    "changes",
    [
        {"m": "5"},
        {"m": True},
        {"m": -1},
        {"m": 1 << 60},
        {"epoch": 1.0},
        {"writer": "../../etc"},
        {"previous": "ab"},
        {"log_chain": SHA.upper()},
        {"released": 1},
        {"snap": []},
        {"segs": {}},
        {"segs": [7]},
        {"segs": [{**asdict(MANIFEST.segs[0]), "key": "../../etc/cron.d/x"}]},
        {"segs": [{**asdict(MANIFEST.segs[0]), "key": seg_key(21, SHA)}]},
        {"segs": [asdict(MANIFEST.segs[0])] * 2},
        {"log_seq": 39},
        {"snap": {"key": "seg/x"}},
        {"more": 1},
        {"v": 0},
        {"v": "1"},
    ],
    ids=str,
)
def test_a_manifest_with_a_right_hash_must_still_be_one(changes: dict[str, object]) -> None:
    with pytest.raises(Damaged):
        decode_manifest(forged({**asdict(MANIFEST), **changes}), "manifest/5")


@pytest.mark.parametrize("changes", [{"n": None}, {"answers": 7}, {"first": 44}, {"nonce": ["a"]}], ids=str)
def test_a_header_with_a_right_hash_must_still_be_one(changes: dict[str, object]) -> None:
    body = {**asdict(HEADER), "bytes_sha256": sha256(b"").hexdigest(), **changes}
    with pytest.raises(Damaged):
        decode_object(forged(body) + b"\n", "log/7")


def test_hint_and_knock_say_what_was_put_into_them_or_nothing() -> None:
    assert decode_hint(encode_hint(4, 99)) == (4, 99)
    assert [decode_hint(data) for data in (b"", b"[]", b'{"m":1}', b'{"m":-1,"n":2}', b"7", b"[" * 9999)] == [
        (0, 0)
    ] * 6
    assert decode_knock(encode_knock("00ff")) == "00ff"
    bad = (b"", b"{}", json.dumps({"nonce": "../x"}).encode(), b'{"nonce":7}')
    assert [decode_knock(data) for data in bad] == [""] * 4


def test_a_replica_is_complete_with_a_snapshot_or_from_the_first_record_on() -> None:
    assert MANIFEST.begins == 20 and MANIFEST.complete
    assert not replace(MANIFEST, snap=None).complete
    assert replace(MANIFEST, snap=None, segs=(), log_seq=0).complete
