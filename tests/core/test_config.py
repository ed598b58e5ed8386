"""Where a store is: the grammar of URLs, the configuration file, the environment; and no secret shown."""

# ruff: noqa: S106  # the passwords are made up

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest

from polyvec import ConfigurationError
from polyvec.config import (
    Configuration,
    Host,
    StoreConfig,
    StoreUrl,
    convert,
    expand,
    load_configuration,
    parse_url,
    redact,
    store_options,
    suggest,
)

# URLs ------------------------------------------------------------------------------------------------

URLS: list[tuple[str, StoreUrl]] = [
    ("memory://", StoreUrl("memory")),
    ("memory:", StoreUrl("memory")),
    ("Chroma:./Data", StoreUrl("chroma", path="./Data")),
    ("chroma:./data", StoreUrl("chroma", path="./data")),
    ("chroma:/abs/data", StoreUrl("chroma", path="/abs/data")),
    ("chroma:///abs/data", StoreUrl("chroma", path="/abs/data")),
    ("chroma:my data/x", StoreUrl("chroma", path="my data/x")),
    ("chroma:my%20data%3Fx", StoreUrl("chroma", path="my data?x")),
    (r"chroma:C:\data", StoreUrl("chroma", path=r"C:\data")),
    ("milvus:./data.db?timeout_s=3", StoreUrl("milvus", path="./data.db", options={"timeout_s": "3"})),
    ("CHROMA://Host:8000", StoreUrl("chroma", (Host("Host", 8000),))),
    ("qdrant://host", StoreUrl("qdrant", (Host("host", None),))),
    ("qdrant://host:6333/", StoreUrl("qdrant", (Host("host", 6333),), "/")),
    ("elasticsearch://host/a%20b/c", StoreUrl("elasticsearch", (Host("host", None),), "/a b/c")),
    ("qdrant://[::1]:6333", StoreUrl("qdrant", (Host("::1", 6333),))),
    ("qdrant://[2001:db8::1.2.3.4]", StoreUrl("qdrant", (Host("2001:db8::1.2.3.4", None),))),
    (
        "typesense://:key@a:1,b,[::1]:3/path?x=1",
        StoreUrl(
            "typesense",
            (Host("a", 1), Host("b", None), Host("::1", 3)),
            "/path",
            password="key",
            options={"x": "1"},
        ),
    ),
    ("redis://user:pw@host", StoreUrl("redis", (Host("host", None),), user="user", password="pw")),
    ("redis://user@host", StoreUrl("redis", (Host("host", None),), user="user")),
    ("redis://user:@host", StoreUrl("redis", (Host("host", None),), user="user")),
    (
        "redis://us%40er:p%40%2F%3A%23%3F%25w@host",
        StoreUrl("redis", (Host("host", None),), user="us@er", password="p@/:#?%w"),
    ),
    ("redis://user:p@w:x@host", StoreUrl("redis", (Host("host", None),), user="user", password="p@w:x")),
    (
        "weaviate://host:8080?grpc_port=50051&tls=true&empty=&name=a%26b",
        StoreUrl(
            "weaviate",
            (Host("host", 8080),),
            options={"grpc_port": "50051", "tls": "true", "empty": "", "name": "a&b"},
        ),
    ),
]


@pytest.mark.parametrize(("url", "expected"), URLS, ids=[url for url, _ in URLS])
def test_parse_url(url: str, expected: StoreUrl) -> None:
    assert parse_url(url) == expected


WRONG_URLS = [
    ("", "no store URL; write e.g. chroma:./data or qdrant://host"),
    ("chroma", "no store URL"),
    ("1chroma:x", "no store URL"),
    ("chr oma:x", "no store URL"),
    (":x", "no store URL"),
    ("qdrant://host:port", "after :// stand .*host"),
    ("qdrant://host:0", "port 1 to 65535"),
    ("qdrant://host:65536", "port 1 to 65535"),
    ("qdrant://host:" + "9" * 5000, "port 1 to 65535"),
    ("qdrant://host:٣", "port 1 to 65535"),
    ("qdrant://a:1:2", "after :// stand"),
    ("qdrant://::1", "after :// stand"),
    ("qdrant://[::1", "after :// stand"),
    ("qdrant://[::1]x", "after :// stand"),
    ("qdrant://:6333", "after :// stand"),
    ("qdrant://host?tls", "the options after \\? must be name=value&..."),
    ("qdrant://host?a=1&&b=2", "the options after"),
    ("qdrant://host?a=1&a=2", "an option is given twice"),
]


@pytest.mark.parametrize(("url", "message"), WRONG_URLS, ids=[url[:30] for url, _ in WRONG_URLS])
def test_wrong_urls(url: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        parse_url(url)


# Each of these has the password s3cret-pw or a part of it after the first character that needs encoding.
LEAKY = [
    "redis://user:s3cret-pw@host:port",
    "redis://user:s3cret-pw@host:1:2",
    "redis://:s3cret-pw@host?x",
    "redis://user:s3cret/s3cret-pw@host",
    "redis://user:s3cret?s3cret-pw@host",
    "redis://user:s3cret?a=s3cret-pw@host",
    "redis://user:s3cret#/s3cret-pw@host",
    "redis://user:99999/s3cret-pw@host",
    "redis://user:s3cret s3cret-pw@host:port",
    "redis://user:s3cret@s3cret-pw@host:port",
    "redis://host:port?password=s3cret-pw",
    "redis://host:port?api_key=s3cret-pw&x=1",
    "redis://host:port?x=1&API_KEY=s3cret-pw",
    "redis://host:port?auth_token=s3cret-pw",
    "1redis://user:s3cret-pw@host",
    "re_dis://user:s3cret-pw@host",
]


@pytest.mark.parametrize("url", LEAKY)
def test_errors_about_urls_show_no_password(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_url(url)
    assert "s3cret" not in str(caught.value)
    assert "99999" not in str(caught.value)
    assert "host" in str(caught.value)
    assert caught.value.__context__ is None or caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("redis://user:pw@host:6379/0", "redis://user:***@host:6379/0"),
        ("typesense://:key@host", "typesense://:***@host"),
        ("qdrant://host:6333?api_key=k&tls=true", "qdrant://host:6333?api_key=***&tls=true"),
        ("x://h?a=1&my_secret_thing=k", "x://h?a=1&my_secret_thing=***"),
        ("qdrant://host:6333", "qdrant://host:6333"),
        ("chroma:./data", "chroma:./data"),
        ("redis://user@host", "redis://user@host"),
        (
            "fake: query('docs'): cannot reach redis://u:pw@host, see x@y",
            "fake: query('docs'): cannot reach redis://u:***@host, see x@y",
        ),
        ("error at 'x://h?key=k': no", "error at 'x://h?key=***': no"),
        ("", ""),
    ],
)
def test_redact(text: str, expected: str) -> None:
    assert redact(text) == expected


# The options of a store ------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Config(StoreConfig):
    """An adapter's."""

    environment: ClassVar[Mapping[str, str]] = {"api_key": "FAKE_API_KEY", "replicas": "FAKE_REPLICAS"}
    replicas: int = 1
    ratio: float | None = None
    shard: str | None = None
    secret_token: str | None = field(default=None, repr=False)


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FAKE_API_KEY", "FAKE_REPLICAS", "POLYVEC_CONFIG"):
        monkeypatch.delenv(name, raising=False)


def make(url: str, **options: object) -> Config:
    return Config.make(parse_url(url), options)


def test_defaults() -> None:
    config = make("fake://host")
    assert (config.user, config.password, config.api_key, config.timeout_s, config.tls) == (
        None, None, None, 30.0, None,
    )  # fmt: skip
    assert config.host == Host("host", None)
    assert make("fake:./data").host is None


def test_options_come_from_the_url_and_are_converted() -> None:
    config = make("fake://u:p@host?timeout_s=2.5&tls=True&replicas=3&ratio=1&shard=7&api_key=k")
    assert (config.timeout_s, config.tls, config.replicas, config.ratio, config.shard) == (
        2.5,
        True,
        3,
        1.0,
        "7",
    )
    assert (config.user, config.password, config.api_key) == ("u", "p", "k")
    assert [type(value) for value in (config.replicas, config.ratio)] == [int, float]


def test_further_options_win_over_the_url() -> None:
    config = make("fake://u:p@host?replicas=3&tls=no", replicas=4, tls=True, password="q", user="v")
    assert (config.replicas, config.tls, config.user, config.password) == (4, True, "v", "q")
    assert make("fake://u:p@host?shard=a", shard=None, password=None).shard is None


def test_the_environment_is_used_where_nothing_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_API_KEY", "from the environment")
    monkeypatch.setenv("FAKE_REPLICAS", "5")
    config = make("fake://host")
    assert (config.key, config.replicas) == ("from the environment", 5)
    assert make("fake://host?api_key=k&replicas=2").key == "k"
    assert make("fake://host", api_key="k").key == "k"
    assert make("fake://:k@host").key == "k", "a key in the URL is given"
    assert make("fake://u:p@host").key == "from the environment", "a password of a user is no key"
    monkeypatch.setenv("FAKE_API_KEY", "")
    assert make("fake://host").key is None
    monkeypatch.setenv("FAKE_REPLICAS", "many")
    with pytest.raises(
        ConfigurationError, match="environment variable FAKE_REPLICAS must be a int, not 'many'"
    ):
        make("fake://host")


def test_the_key() -> None:
    assert make("fake://:k@host").key == "k"
    assert make("fake://u:p@host").key is None
    assert make("fake://u:p@host?api_key=k").key == "k"
    assert make("fake://host").key is None


def test_unknown_options() -> None:
    for url, options in [("fake://host?replica=3", {}), ("fake://host", {"replica": 3})]:
        with pytest.raises(ConfigurationError) as caught:
            make(url, **options)
        assert str(caught.value) == (
            "fake: unknown option 'replica' (did you mean 'replicas'?); options are api_key, password, "
            "ratio, replicas, secret_token, shard, timeout_s, tls, user"
        )
    for name in ("url", "environment", "zzz", "host"):
        with pytest.raises(ConfigurationError, match=f"unknown option '{name}'"):
            Config.make(parse_url("fake://host"), {name: "x"})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timeout_s": "soon"}, "fake: option 'timeout_s' must be a float, not 'soon'"),
        ({"timeout_s": 0}, "timeout_s must be a positive number of seconds, not 0"),
        ({"timeout_s": -1}, "timeout_s must be a positive number"),
        ({"timeout_s": "inf"}, "timeout_s must be a positive number"),
        ({"timeout_s": "nan"}, "must be a float, not 'nan'"),
        ({"timeout_s": True}, "must be a float, not True"),
        ({"timeout_s": None}, "must be a float, not None"),
        ({"replicas": 2.5}, "must be a int, not 2.5"),
        ({"replicas": "2.0"}, "must be a int, not '2.0'"),
        ({"replicas": [1]}, "must be a int"),
        ({"replicas": 10**400}, "must be a int"),
        ({"replicas": float("inf")}, "must be a int, not inf"),
        ({"tls": "maybe"}, "must be a bool, not 'maybe'"),
        ({"tls": 1}, "must be a bool, not 1"),
        ({"shard": 5}, "must be a str, not int"),
        ({"user": b"x"}, "must be a str, not bytes"),
    ],
    ids=str,
)
def test_wrong_values(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        make("fake://host", **options)


@pytest.mark.parametrize(
    ("value", "expected"),
    [("true", True), ("YES", True), ("1", True), ("false", False), ("No", False), ("0", False), (True, True)],
)
def test_bools(value: object, expected: bool) -> None:
    assert convert(value, bool, "x") is expected


def test_convert() -> None:
    assert convert(None, str | None, "x") is None
    assert convert(2.0, int, "x") == 2
    assert type(convert(2.0, int, "x")) is int
    assert type(convert(2, float, "x")) is float
    assert convert("-3", int, "x") == -3


def test_secrets_are_never_shown() -> None:
    config = make("fake://me:s3cret@host?api_key=s3cret2", secret_token="s3cret3")
    for shown in (repr(config), str(config), f"{config}", repr(config.url), str(config.url)):
        assert "s3cret" not in shown
    assert "me" in repr(config)
    assert sorted(config.secrets()) == ["s3cret", "s3cret2", "s3cret3"]
    for option in ("api_key", "password", "secret_token"):
        with pytest.raises(ConfigurationError) as caught:
            make("fake://host", **{option: 1234567})
        assert "1234567" not in str(caught.value)


def test_suggest() -> None:
    assert suggest("qdrnt", ["chroma", "qdrant"]) == " (did you mean 'qdrant'?)"
    assert suggest("zzz", ["chroma", "qdrant"]) == ""
    assert suggest("x", []) == ""


# The configuration file ------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with two more inside, the working directory the innermost."""
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    return tmp_path


STORE = '[stores.docs]\nurl = "chroma:./data"\n'


def test_no_configuration(project: Path) -> None:
    found = load_configuration()
    assert found == Configuration()
    with pytest.raises(
        ConfigurationError,
        match=r"there is no store 'docs' in the configuration \(no polyvec.toml was found\); known are none",
    ):
        store_options("docs", found)


@pytest.mark.parametrize("folder", [".", "a", "a/b"])
def test_the_file_is_found_upwards(project: Path, folder: str) -> None:
    (project / folder / "polyvec.toml").write_text(STORE)
    found = load_configuration()
    assert found.source == project / folder / "polyvec.toml"
    assert found.stores == {"docs": {"url": "chroma:./data"}}


def test_the_nearest_file_counts(project: Path) -> None:
    (project / "polyvec.toml").write_text(STORE)
    (project / "a" / "pyproject.toml").write_text('[tool.polyvec.stores.inner]\nurl = "memory:"\n')
    (project / "a" / "b" / "pyproject.toml").write_text("[tool.other]\n")
    found = load_configuration()
    assert found.source == project / "a" / "pyproject.toml"
    assert list(found.stores) == ["inner"]
    (project / "a" / "polyvec.toml").write_text(STORE)
    assert load_configuration().source == project / "a" / "polyvec.toml", "before a pyproject.toml beside it"


@pytest.mark.parametrize("text", ["not toml [", "tool = 5", "", "[tool]\nother = 1"])
def test_a_pyproject_of_others_is_passed_by(project: Path, text: str) -> None:
    (project / "polyvec.toml").write_text(STORE)
    (project / "a" / "pyproject.toml").write_text(text)
    assert load_configuration().source == project / "polyvec.toml"


def test_the_variable_wins(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "polyvec.toml").write_text(STORE)
    (project / "other.toml").write_text('[stores.other]\nurl = "memory:"\n')
    monkeypatch.setenv("POLYVEC_CONFIG", str(project / "other.toml"))
    assert list(load_configuration().stores) == ["other"]
    (project / "pyproject.toml").write_text('[tool.polyvec.stores.p]\nurl = "memory:"\n')
    monkeypatch.setenv("POLYVEC_CONFIG", str(project / "pyproject.toml"))
    assert list(load_configuration().stores) == ["p"]
    monkeypatch.setenv("POLYVEC_CONFIG", str(project / "missing.toml"))
    with pytest.raises(ConfigurationError, match=r"missing.toml: cannot be read: No such file or directory"):
        load_configuration()
    assert list(load_configuration(project / "other.toml").stores) == ["other"]


WRONG_FILES = [
    ("not toml [", "Expected '=' after a key"),
    (
        "[store.docs]\n",
        r"unknown key 'store' \(did you mean 'stores'\?\); known are stores, embedders, defaults",
    ),
    (
        "[defaults]\nstores = 'docs'\n",
        r"unknown key 'defaults.stores' \(did you mean 'store'\?\); known are store, c",
    ),
    ("[defaults]\nstore = 5\n", "defaults.store must be a name, not 5"),
    ("defaults = 'docs'\n", "defaults must be a table, not 'docs'"),
    ("stores = ['docs']\n", r"stores must be a table, not \['docs'\]"),
    ("[stores]\ndocs = 'redis://u:s3cret@h'\n", "stores.docs must be a table, not str"),
    ("[embedders]\nlocal = 5\n", "embedders.local must be a table, not int"),
    ("\x00", "Invalid statement"),
]


@pytest.mark.parametrize(("text", "message"), WRONG_FILES)
def test_wrong_files(project: Path, text: str, message: str) -> None:
    (project / "polyvec.toml").write_text(text)
    with pytest.raises(ConfigurationError, match=message) as caught:
        load_configuration()
    assert str(project / "polyvec.toml") in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_files_that_are_no_text(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "polyvec.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match=r"polyvec.toml: "):
        load_configuration()
    monkeypatch.setenv("POLYVEC_CONFIG", str(project))
    with pytest.raises(ConfigurationError, match="cannot be read: Is a directory"):
        load_configuration()
    (project / "pyproject.toml").write_text("[tool]\npolyvec = 5\n")
    with pytest.raises(ConfigurationError, match=r"tool.polyvec must be a table, not 5"):
        load_configuration(project / "pyproject.toml")


def configured(project: Path, text: str) -> Configuration:
    (project / "polyvec.toml").write_text(text)
    return load_configuration()


def test_store_options(project: Path) -> None:
    text = '[stores.docs]\nurl = "qdrant://host:6333?tls=true"\ntimeout_s = 10\napi_key = "k"\n'
    url, options = store_options("docs", configured(project, text))
    assert url == StoreUrl("qdrant", (Host("host", 6333),), options={"tls": "true"})
    assert options == {"timeout_s": 10, "api_key": "k"}


def test_a_relative_path_is_relative_to_the_file(project: Path) -> None:
    text = """
        [stores.a]
        url = "chroma:./data"
        [stores.b]
        url = "chroma:/abs"
        [stores.c]
        url = "chroma://host/path"
        [stores.d]
        url = "memory:"
    """
    found = configured(project, text)
    assert Path(store_options("a", found)[0].path) == project / "data"
    assert [store_options(name, found)[0].path for name in "bcd"] == ["/abs", "/path", ""]


def test_unknown_stores(project: Path) -> None:
    found = configured(project, STORE + '[stores.more]\nurl = "memory:"\n')
    with pytest.raises(
        ConfigurationError,
        match=r"there is no store 'dcs' \(did you mean 'docs'\?\) in the configuration \(.*polyvec.toml\); "
        "known are docs, more",
    ):
        store_options("dcs", found)
    for text in ("[stores.docs]\n", "[stores.docs]\nurl = 5\n"):
        with pytest.raises(ConfigurationError, match=r"polyvec.toml: stores.docs has no url"):
            store_options("docs", configured(project, text))


def test_variables_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A", "x${B}y")
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.delenv("MISSING", raising=False)
    cases: list[tuple[Any, Any]] = [
        ("${A}", "x${B}y"),
        ("-${A}-${A}-", "-x${B}y-x${B}y-"),
        ("${EMPTY}", ""),
        ("${EMPTY:-default}", ""),
        ("${MISSING:-default}", "default"),
        ("${MISSING:-}", ""),
        ("${MISSING:-a:-b}", "a:-b"),
        ("$A ${} ${1} $$", "$A ${} ${1} $$"),
        ({"k": ["${A}", 5, True, None]}, {"k": ["x${B}y", 5, True, None]}),
    ]
    for value, expected in cases:
        assert expand(value, "here") == expected
    with pytest.raises(ConfigurationError, match=r"^here.k.l: the environment variable MISSING is not set$"):
        expand({"k": {"l": ["${MISSING}"]}}, "here")


def test_variables_in_a_store(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOST_NAME", "db.example.com")
    monkeypatch.setenv("KEY", "s3cret")
    text = """
        [stores.docs]
        url = "qdrant://${HOST_NAME}:${PORT:-6333}"
        api_key = "${KEY}"
        [stores.other]
        url = "memory:"
        api_key = "${NOT_SET_ANYWHERE}"
    """
    found = configured(project, text)
    url, options = store_options("docs", found)
    assert url.hosts == (Host("db.example.com", 6333),)
    assert options == {"api_key": "s3cret"}
    assert "s3cret" not in repr(found), "the variables are replaced when a store is opened"
    with pytest.raises(
        ConfigurationError,
        match=r"polyvec.toml: stores.other.api_key: the environment variable NOT_SET_ANYWHERE is not set",
    ):
        store_options("other", found)
