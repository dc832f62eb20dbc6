"""Settings: who wins, what is refused and by which name, what is only told, and that no secret shows itself."""

import dataclasses
from ipaddress import ip_network
from pathlib import Path

import pytest

from gateway.places import Remote
from gateway.secret import Secret
from gateway.settings import SETTINGS, Settings, read, scrub, table
from persistence.errors import UsageError

TOKEN = "0123456789abcdef0123456789abcdef"
DOCUMENT = Path(__file__).parents[2] / "docs" / "settings.md"


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


def write_env(data_dir: Path, text: str) -> None:
    data_dir.mkdir()
    (data_dir / ".env").write_text(text)


def read_in(data_dir: Path, **environ: str) -> Settings:
    return read({"FINN_DATA_DIR": str(data_dir), **environ})


def refusal_of(data_dir: Path, **environ: str) -> str:
    with pytest.raises(UsageError) as caught:
        read_in(data_dir, **environ)
    return str(caught.value)


def test_every_line_of_the_table_is_a_field_and_the_other_way_round() -> None:
    fields = [field.name for field in dataclasses.fields(Settings) if field.name != "problems"]
    assert [setting.field for setting in SETTINGS] == fields


def test_the_documentation_holds_the_table() -> None:
    assert table() in DOCUMENT.read_text(encoding="utf-8")


def test_without_a_word_the_defaults_hold(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    settings = read({})
    assert (settings.data_dir, settings.host, settings.port) == (tmp_path / ".finn", "127.0.0.1", 8080)
    assert (settings.token, settings.model, settings.shutdown_budget, settings.problems) == (None, None, 8.0, ())


def test_reading_creates_nothing(data_dir: Path) -> None:
    read_in(data_dir)
    assert not data_dir.exists()


def test_a_flag_wins_over_the_environment_and_the_environment_over_the_file(data_dir: Path) -> None:
    write_env(data_dir, "FINN_PORT=1\nFINN_AGENT_ID=file\nFINN_RELEASE=file\n")
    environ = {"FINN_DATA_DIR": str(data_dir), "FINN_PORT": "2", "FINN_AGENT_ID": "environment"}
    settings = read(environ, {"FINN_PORT": "3", "FINN_HOST": None})
    assert (settings.port, settings.agent_id, settings.release) == (3, "environment", "file")


def test_an_empty_value_says_nothing(data_dir: Path) -> None:
    write_env(data_dir, "FINN_AGENT_ID=file\nFINN_RELEASE=\n")
    settings = read_in(data_dir, FINN_AGENT_ID="", FINN_TOKEN="")
    assert (settings.agent_id, settings.release, settings.token) == ("file", None, None)


@pytest.mark.parametrize(
    ("environ", "port"),
    [({"PORT": "5"}, 5), ({"PORT": "5", "FINN_PORT": "6"}, 6), ({"PORT": "5", "FINN_PORT": ""}, 5)],
)
def test_port_is_the_lesser_name_of_finn_port(data_dir: Path, environ: dict[str, str], port: int) -> None:
    assert read_in(data_dir, **environ).port == port


def test_port_of_the_environment_wins_over_finn_port_of_the_file(data_dir: Path) -> None:
    write_env(data_dir, "FINN_PORT=6\n")
    assert read_in(data_dir, PORT="5").port == 5


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FINN_PORT", "65536"),
        ("FINN_PORT", "http"),
        ("FINN_PORT", "-1"),
        ("FINN_HOST", "http://127.0.0.1"),
        ("FINN_TOKEN", "hunter2"),
        ("FINN_TOKEN", "a" * 64),
        ("FINN_TOKEN", "correct horse battery staple correct horse"),
        ("FINN_PUBLIC_URL", "finn.example"),
        ("FINN_PUBLIC_URL", "https://finn.example/chat"),
        ("FINN_PUBLIC_URL", "https://me:pw@finn.example"),
        ("FINN_PUBLIC_URL", "ftp://finn.example"),
        ("FINN_ALLOWED_HOSTS", "*"),
        ("FINN_ALLOWED_HOSTS", "https://finn.example"),
        ("FINN_ALLOWED_ORIGINS", "null"),
        ("FINN_ALLOWED_ORIGINS", "https://*.example"),
        ("FINN_TRUSTED_PROXIES", "proxy.internal"),
        ("FINN_TRUSTED_PROXIES", "10.0.0.1/8"),
        ("FINN_AGENT_ID", "../main"),
        ("FINN_MODEL", "gpt"),
        ("FINN_MODEL", "openai:"),
        ("FINN_SANDBOX", "docker"),
        ("FINN_SANDBOX_NETWORK", "yes"),
        ("FINN_SHUTDOWN_BUDGET", "8"),
        ("FINN_SHUTDOWN_BUDGET", "8 s"),
        ("FINN_LOG_LEVEL", "loud"),
        ("FINN_STORE_URL", "bucket"),
        ("FINN_STORE_URL", "gs://bucket"),
        ("FINN_STORE_URL", "s3://"),
        ("FINN_STORE_URL", "s3://b"),
        ("FINN_STORE_URL", "s3://bucket/../other"),
        ("FINN_STORE_URL", "s3://bucket//prefix"),
        ("FINN_STORE_URL", "s3://bucket?x=1"),
        ("FINN_STORE_URL", "file://relative"),
        ("FINN_STORE_URL", "file:///a/../b"),
        ("FINN_DURABILITY", "both"),
        ("FINN_SYNC_INTERVAL", "0s"),
        ("FINN_ARCHIVE_INTERVAL", "hourly"),
        ("FINN_GIT_REMOTE", "state.git"),
        ("FINN_GIT_REMOTE", "ext::sh -c touch% /tmp/pwn"),
        ("FINN_GIT_REMOTE", "--upload-pack=touch"),
        ("FINN_GIT_REMOTE", "git://host/state.git"),
        ("FINN_GIT_REMOTE", "ssh://me:hunter2@host/state.git"),
        ("FINN_GIT_REMOTE", "https://one@two@host/state.git"),
        ("FINN_GIT_BRANCH", "-f"),
        ("FINN_GIT_BRANCH", "state/../main"),
        ("FINN_GIT_BRANCH", "a b"),
        ("FINN_GIT_BRANCH", "x.lock"),
        ("FINN_WORKSPACE_MAX", "much"),
        ("FINN_WORKSPACE_FILE_MAX", "-1"),
        ("AWS_ENDPOINT_URL_S3", "store.example"),
        ("AWS_ENDPOINT_URL_S3", "https://key:secret@store.example"),
        ("AWS_REGION", "eu central"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_by_its_name(data_dir: Path, name: str, value: str) -> None:
    assert refusal_of(data_dir, **{name: value}).startswith(f"{name} ")


def test_what_is_wrong_with_a_secret_is_told_without_telling_it(data_dir: Path) -> None:
    assert "hunter2" not in refusal_of(data_dir, FINN_TOKEN="hunter2")


@pytest.mark.parametrize(
    "said",
    [
        {"FINN_STORE_URL": "s3://me:hunter2@bucket/prefix"},
        {"FINN_GIT_REMOTE": "ftp://me:hunter2@host/state.git"},
        {"FINN_PUBLIC_URL": "https://me:hunter2@finn.example"},
        {"AWS_ENDPOINT_URL_S3": "https://me:hunter2@host"},
    ],
    ids=lambda said: next(iter(said)),
)
def test_what_is_wrong_with_a_url_is_told_without_its_password(data_dir: Path, said: dict[str, str]) -> None:
    assert "hunter2" not in refusal_of(data_dir, **said)


@pytest.mark.parametrize(("text", "seconds"), [("30s", 30), ("5m", 300), ("1h", 3600), ("90d", 7776000)])
def test_a_duration_reads_as_seconds(data_dir: Path, text: str, seconds: float) -> None:
    assert read_in(data_dir, FINN_SHUTDOWN_BUDGET=text).shutdown_budget == seconds


@pytest.mark.parametrize(
    ("slip", "meant"),
    [
        ("FINN_TOKN", "FINN_TOKEN"),
        ("FINN_PROT", "FINN_PORT"),
        ("FINN_MODELS", "FINN_MODEL"),
        ("FINN_STORE_URI", "FINN_STORE_URL"),
    ],
)
def test_a_slip_of_the_pen_is_refused_and_the_right_name_told(data_dir: Path, slip: str, meant: str) -> None:
    assert refusal_of(data_dir, **{slip: "x"}) == f"{slip} is not a setting (did you mean {meant}?)"


def test_a_slip_of_the_pen_in_the_file_is_refused_too(data_dir: Path) -> None:
    write_env(data_dir, "FINN_TOKN=x\n")
    assert "FINN_TOKEN" in refusal_of(data_dir)


def test_a_name_of_another_release_is_told_and_ignored(data_dir: Path) -> None:
    assert read_in(data_dir, FINN_TELEPATHY="on").problems == (
        "FINN_TELEPATHY is not a setting of this release and was ignored",
    )


def test_names_without_our_prefix_are_nobodys_business(data_dir: Path) -> None:
    assert read_in(data_dir, FIN_TOKEN="x", HOME="/root", TOKEN="x").problems == ()


def test_the_data_directory_cannot_be_moved_from_inside_itself(data_dir: Path) -> None:
    write_env(data_dir, "FINN_DATA_DIR=/elsewhere\n")
    assert refusal_of(data_dir).startswith("FINN_DATA_DIR stands in ")


# ---------------------------------------------------------------- reachable from other machines

EXPOSED = {"FINN_HOST": "0.0.0.0", "FINN_TOKEN": TOKEN, "FINN_PUBLIC_URL": "https://finn.example"}


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "finn.example"])
def test_a_host_that_others_reach_needs_a_token_of_its_own(data_dir: Path, host: str) -> None:
    assert "FINN_TOKEN" in refusal_of(data_dir, FINN_HOST=host, FINN_PUBLIC_URL="https://finn.example")


def test_a_host_that_others_reach_needs_to_know_its_name(data_dir: Path) -> None:
    assert "FINN_PUBLIC_URL" in refusal_of(data_dir, FINN_HOST="0.0.0.0", FINN_TOKEN=TOKEN)


@pytest.mark.parametrize("name", [{"FINN_PUBLIC_URL": "https://finn.example"}, {"FINN_ALLOWED_HOSTS": "finn.example"}])
def test_with_a_token_and_a_name_it_may_be_reached(data_dir: Path, name: dict[str, str]) -> None:
    assert read_in(data_dir, FINN_HOST="::", FINN_TOKEN=TOKEN, **name).host == "::"


def test_a_script_answers_on_loopback_only(data_dir: Path) -> None:
    assert "scripted:x.json" in refusal_of(data_dir, **EXPOSED, FINN_MODEL="scripted:x.json")
    assert read_in(data_dir, FINN_MODEL="scripted:x.json").model == "scripted:x.json"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.0.0.2", "::1", "[::1]"])
def test_loopback_needs_neither(data_dir: Path, host: str) -> None:
    assert read_in(data_dir, FINN_HOST=host).token is None


# ---------------------------------------------------------------- models


def test_another_server_needs_to_know_which_model(data_dir: Path) -> None:
    assert "FINN_MODEL" in refusal_of(data_dir, FINN_MODEL_BASE_URL="http://127.0.0.1:9/v1")


def test_a_model_without_its_key_is_told(data_dir: Path) -> None:
    assert read_in(data_dir, FINN_MODEL="openai:gpt").problems == (
        "FINN_MODEL is openai:gpt, but OPENAI_API_KEY is not set",
    )


def test_another_server_needs_no_key(data_dir: Path) -> None:
    assert read_in(data_dir, FINN_MODEL="openai:m", FINN_MODEL_BASE_URL="http://127.0.0.1:9/v1").problems == ()


# ---------------------------------------------------------------- copies


def test_without_a_word_there_are_no_copies(data_dir: Path) -> None:
    settings = read_in(data_dir)
    assert (settings.store_url, settings.git_remote, settings.durability) == (None, None, "local")
    assert (settings.sync_interval, settings.archive_interval, settings.archive_branch) == (30, 3600, "state/main")
    assert (settings.workspace_file_max, settings.workspace_max) == (8 << 20, 1 << 30)


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket/a/b/", "s3://bucket/a/b"),
        ("file:///var/backup", "file:///var/backup"),
    ],
)
def test_a_store_is_a_bucket_or_a_folder(data_dir: Path, said: str, read: str) -> None:
    assert read_in(data_dir, FINN_STORE_URL=said).store_url == read


def test_a_bucket_that_the_platform_names_is_the_store_unless_another_is_said(data_dir: Path) -> None:
    assert read_in(data_dir, BUCKET_NAME="theirs").store_url == "s3://theirs"
    assert read_in(data_dir, BUCKET_NAME="theirs", FINN_STORE_URL="s3://mine").store_url == "s3://mine"


def test_a_store_inside_the_data_directory_is_refused(data_dir: Path) -> None:
    assert "FINN_STORE_URL" in refusal_of(data_dir, FINN_STORE_URL=f"file://{data_dir}/copy")


def test_acknowledgements_cannot_wait_for_a_store_that_is_not_named(data_dir: Path) -> None:
    assert "FINN_STORE_URL" in refusal_of(data_dir, FINN_DURABILITY="store")
    assert read_in(data_dir, FINN_DURABILITY="store", FINN_STORE_URL="s3://bucket").durability == "store"


@pytest.mark.parametrize(
    ("said", "remote"),
    [
        ("https://host/me/state.git", Remote("https://host/me/state.git")),
        ("https://tok%2Fen@host/s.git", Remote("https://host/s.git", "x-access-token", Secret("tok/en"))),
        ("https://token:x-oauth-basic@host/s.git", Remote("https://host/s.git", "x-access-token", Secret("token"))),
        ("https://me:p%40ss@host:8443/s.git", Remote("https://host:8443/s.git", "me", Secret("p@ss"))),
        ("git@host:me/state.git", Remote("git@host:me/state.git")),
        ("ssh://git@host:22/me/state.git", Remote("ssh://git@host:22/me/state.git")),
        ("file:///srv/state.git", Remote("file:///srv/state.git")),
        ("/srv/state.git", Remote("/srv/state.git")),
    ],
)
def test_a_remote_is_read_apart_from_what_opens_it(data_dir: Path, said: str, remote: Remote) -> None:
    settings = read_in(data_dir, FINN_GIT_REMOTE=said)
    assert settings.git_remote == remote
    assert settings.secrets == ({"FINN_GIT_REMOTE": remote.reveal()} if remote.password else {})


def test_each_agent_has_a_branch_of_its_own_unless_one_is_said(data_dir: Path) -> None:
    assert read_in(data_dir, FINN_AGENT_ID="ada").archive_branch == "state/ada"
    assert read_in(data_dir, FINN_AGENT_ID="ada", FINN_GIT_BRANCH="backup").archive_branch == "backup"


@pytest.mark.parametrize(("text", "size"), [("100", 100), ("512KB", 512 << 10), ("8MB", 8 << 20), ("1gb", 1 << 30)])
def test_a_size_reads_as_bytes(data_dir: Path, text: str, size: int) -> None:
    assert read_in(data_dir, FINN_WORKSPACE_MAX=text).workspace_max == size


def test_the_names_of_the_aws_tools_are_read(data_dir: Path) -> None:
    write_env(data_dir, "AWS_ACCESS_KEY_ID=AKIA\nAWS_SECRET_ACCESS_KEY=s3cret\n")
    settings = read_in(data_dir, AWS_DEFAULT_REGION="auto", AWS_ENDPOINT_URL="https://store.example/")
    assert settings.aws_access_key_id == Secret("AKIA") and settings.aws_secret_access_key == Secret("s3cret")
    assert (settings.aws_region, settings.aws_endpoint_url_s3) == ("auto", "https://store.example")


def test_half_a_key_is_told(data_dir: Path) -> None:
    assert read_in(data_dir, AWS_ACCESS_KEY_ID="AKIA").problems == (
        "only one of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY is set; they belong together",
    )


# ---------------------------------------------------------------- the entrance


def test_on_loopback_every_name_of_this_machine_leads_in(data_dir: Path) -> None:
    entrance = read_in(data_dir).entrance(8080)
    assert entrance.hosts == {"127.0.0.1:8080", "localhost:8080", "[::1]:8080"}
    assert entrance.origins == {"http://127.0.0.1:8080", "http://localhost:8080", "http://[::1]:8080"}
    assert (entrance.url, entrance.secure) == ("http://127.0.0.1:8080", False)


def test_behind_a_proxy_the_public_url_leads_in(data_dir: Path) -> None:
    entrance = read_in(data_dir, **EXPOSED).entrance(8080)
    assert entrance.hosts == {"finn.example", "finn.example:443"}
    assert entrance.origins == {"https://finn.example"}
    assert (entrance.url, entrance.secure) == ("https://finn.example", True)


def test_an_allowed_host_is_meant_with_our_port_and_with_none(data_dir: Path) -> None:
    entrance = read_in(
        data_dir, FINN_HOST="::", FINN_TOKEN=TOKEN, FINN_ALLOWED_HOSTS="Finn.lan, [fd00::1]:99"
    ).entrance(80)
    assert {"finn.lan", "finn.lan:80", "finn.lan:443", "[fd00::1]:99"} <= entrance.hosts
    assert {"http://finn.lan", "https://finn.lan", "http://[fd00::1]:99"} <= entrance.origins


def test_an_allowed_origin_is_no_host(data_dir: Path) -> None:
    entrance = read_in(data_dir, FINN_ALLOWED_ORIGINS="https://desk.example:443/").entrance(8080)
    assert "https://desk.example" in entrance.origins
    assert not any("desk" in host for host in entrance.hosts)


def test_proxies_are_addresses_and_networks(data_dir: Path) -> None:
    proxies = read_in(data_dir, FINN_TRUSTED_PROXIES="10.0.0.7, fd00::/8").trusted_proxies
    assert proxies == (ip_network("10.0.0.7/32"), ip_network("fd00::/8"))


# ---------------------------------------------------------------- .env


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("FINN_RELEASE=v1", "v1"),
        ("  export FINN_RELEASE = v1  ", "v1"),
        ("FINN_RELEASE=v1 # the first", "v1"),
        ("FINN_RELEASE=v#1", "v#1"),
        ("FINN_RELEASE='v#1' # the first", "v#1"),
        ('FINN_RELEASE="v#1"', "v#1"),
        (r'FINN_RELEASE="v\"1\\"', 'v"1\\'),
        (r"FINN_RELEASE='v\1'", r"v\1"),
        ("# FINN_RELEASE=v1", None),
        ("FINN_RELEASE=", None),
        ("FINN_RELEASE=''", None),
    ],
)
def test_a_line_of_the_file_is_read(data_dir: Path, line: str, value: str | None) -> None:
    write_env(data_dir, f"\n{line}\n")
    assert read_in(data_dir).release == value


@pytest.mark.parametrize("line", ["s3cret", "FINN_RELEASE='s3cret", 'FINN_RELEASE="s3cret" x', "1A=s3cret", "=s3cret"])
def test_a_line_that_is_none_is_refused_by_its_number_and_not_repeated(data_dir: Path, line: str) -> None:
    write_env(data_dir, f"# first\n{line}\n")
    refusal = refusal_of(data_dir)
    assert "line 2" in refusal and "s3cret" not in refusal


def test_a_file_that_cannot_be_read_is_refused(data_dir: Path) -> None:
    (data_dir / ".env").mkdir(parents=True)
    assert str(data_dir / ".env") in refusal_of(data_dir)


# ---------------------------------------------------------------- secrets


def test_a_secret_shows_itself_only_when_asked(data_dir: Path) -> None:
    settings = read_in(data_dir, FINN_TOKEN=TOKEN, OPENAI_API_KEY="sk-canary")
    remote = read_in(data_dir, FINN_GIT_REMOTE="https://me:hunter2hunter2@host/s.git")
    assert "hunter2" not in f"{remote!r} {remote.git_remote}"
    assert TOKEN not in f"{settings!r} {settings.token} {settings.token!r}"
    assert settings.secrets == {"FINN_TOKEN": TOKEN, "OPENAI_API_KEY": "sk-canary"}


def test_a_secret_equals_only_its_like() -> None:
    assert Secret("a") == Secret("a") != Secret("b")
    assert Secret("a") != "a"


def test_scrubbing_leaves_no_secret_for_a_child() -> None:
    named = (setting.name for setting in SETTINGS if setting.secret)
    environ = {**dict.fromkeys(named, "x"), "FINN_PORT": "1", "PATH": "/bin"}
    keys = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "FINN_GIT_REMOTE", "OPENAI_API_KEY"}
    assert keys <= environ.keys()
    scrub(environ)
    assert environ == {"FINN_PORT": "1", "PATH": "/bin"}


# ---------------------------------------------------------------- addresses of the owner

HOOK = "https://hooks.example/services/T0/B0/secret-of-the-hook"
HOOKS = pytest.mark.parametrize("name", ["FINN_ALERT_URL", "FINN_PING_URL"])


@HOOKS
def test_an_address_of_the_owner_shows_its_host_and_nothing_else(data_dir: Path, name: str) -> None:
    settings = read_in(data_dir, **{name: f"{HOOK}#slack"})
    hook = getattr(settings, name.lower().removeprefix("finn_"))
    assert (hook.origin, hook.form, hook.reveal()) == ("https://hooks.example", "slack", HOOK)
    assert settings.secrets[name] == HOOK
    assert "secret-of-the-hook" not in repr(settings)
    environ = {name: HOOK}
    scrub(environ)
    assert environ == {}


@HOOKS
@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example/secret",
        "https://user:secret@hooks.example/",
        "hooks.example/secret",
        "https://127.0.0.1/secret",
        "https://127.1/secret",
        "https://0x7f000001/secret",
        "https://[::1]/secret",
        "https://[::ffff:10.0.0.1]/secret",
        "https://10.0.0.1/secret",
        "https://169.254.169.254/secret",
        "https://localhost/secret",
        "https://finn.localhost/secret",
        "https://localhost./secret",
        "https://hooks.example/secret#carrier-pigeon",
    ],
)
def test_an_address_that_can_never_be_told_is_refused_at_the_start(data_dir: Path, name: str, url: str) -> None:
    refusal = refusal_of(data_dir, **{name: url})
    assert refusal.startswith(name)
    assert "secret" not in refusal
