"""Files of the workspace and the grimoires, on a disk that is lost and found again in the store."""

import shutil
from pathlib import Path

import pytest

from tests.end_to_end.finn import Finn, finn, until

pytestmark = pytest.mark.slow

SECRET = "sk-0123456789abcdef0123456789abcdef"
WRITES = {
    "when": "write",
    "calls": [[{"tool": "write", "args": {"path": "plan.md", "content": "the plan"}}], [{"text": "Written."}]],
}


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, str]:
    bucket = tmp_path / "bucket"
    bucket.mkdir()
    return {"FINN_STORE_URL": f"file://{bucket}", "OPENAI_API_KEY": SECRET, "FINN_WORKSPACE_FILE_MAX": "1KB"}


def kept(it: Finn) -> dict[str, list[str]]:
    """Which tiers have each file."""
    return {one["path"]: one["tiers"] for one in it.ask("GET", "/api/storage").json["inventory"]}


def test_what_a_tool_and_a_person_wrote_is_there_again_on_an_empty_disk(
    tmp_path: Path, settings: dict[str, str]
) -> None:
    with finn(tmp_path, [WRITES], **settings) as it:
        workspace = it.data / "workspace"
        (workspace / "bin").mkdir()
        (workspace / "bin/run.sh").write_text("#!/bin/sh\n")
        (workspace / "bin/run.sh").chmod(0o700)
        (workspace / "run").symlink_to("bin/run.sh")
        (workspace / "key.txt").write_text(SECRET)
        (workspace / "large").write_bytes(bytes(1025))
        (it.data / "grimoires" / "NOTES.md").write_text("mine")
        session = it.new_session()
        it.say(session, "write")  # after a tool all files are looked at
        until(lambda: "store" in kept(it).get("workspace/plan.md", []))
        left_out = {one["path"]: one["why"] for one in it.ask("GET", "/api/storage").json["left_out"]}
        assert left_out == {"workspace/key.txt": "holds a known secret", "workspace/large": "larger than 1 KB"}
        told = it.command("status")
        assert "workspace/large: larger than 1 KB" in told.stdout, told
        assert SECRET not in told.stdout

        it.kill()
        shutil.rmtree(it.data)
        it.start()

        files = {str(path.relative_to(workspace)) for path in workspace.rglob("*") if not path.is_dir()}
        assert files == {"plan.md", "bin/run.sh", "run"}
        assert (workspace / "plan.md").read_text() == "the plan"
        assert (workspace / "bin/run.sh").stat().st_mode & 0o777 == 0o700
        assert (workspace / "run").readlink() == Path("bin/run.sh")
        assert (it.data / "grimoires" / "NOTES.md").read_text() == "mine"
        assert it.messages(session)[0]["text"] == "write"
        assert set(kept(it)) >= {"workspace/plan.md", "workspace/bin/run.sh", "workspace/run", "grimoires/NOTES.md"}
        assert not any(
            SECRET.encode() in path.read_bytes() for path in (tmp_path / "bucket").rglob("*") if path.is_file()
        )


def test_a_file_that_is_deleted_while_finn_is_down_stays_deleted(tmp_path: Path, settings: dict[str, str]) -> None:
    with finn(tmp_path, [WRITES], **settings) as it:
        it.say(it.new_session(), "write")
        it.kill()
        (it.data / "workspace" / "plan.md").unlink()
        it.start()
        until(lambda: "workspace/plan.md" not in kept(it))
        assert not (it.data / "workspace" / "plan.md").exists()
        assert not (it.data / "restored.json").exists()
