import pytest

from perceivers.cli.main import main
from perceivers.server.access import AccessError, AccessRules, is_loopback, with_token
from perceivers.server.settings import ServerSettings


@pytest.fixture(autouse=True)
def no_token(monkeypatch):
    monkeypatch.delenv("PERCEIVERS_TOKEN", raising=False)


def rules(**settings) -> AccessRules:
    return AccessRules.of(ServerSettings("run", **settings))


def accepted(rules: AccessRules, host: str) -> bool:
    return rules.refusal("GET", {"host": host}) is None


@pytest.mark.parametrize(
    ("host", "is_local"),
    [
        ("127.0.0.1", True),
        ("127.0.0.7", True),
        ("localhost", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("", False),
        ("192.168.1.5", False),
        ("birds.example", False),
    ],
)
def test_an_address_of_other_machines_needs_a_token(host, is_local, tmp_path, capsys, monkeypatch):
    assert is_loopback(host) == is_local
    settings = ServerSettings("run", host=host)
    if is_local:
        assert with_token(settings) == settings
        return
    with pytest.raises(AccessError, match="Other machines can reach"):
        with_token(settings)
    assert main(["serve", str(tmp_path), "--host", host]) == 2
    told = capsys.readouterr().err
    assert "export PERCEIVERS_TOKEN=" in told
    assert "--no-token" in told
    assert with_token(ServerSettings("run", host=host, no_token=True)).token is None
    assert with_token(ServerSettings("run", host=host, token="secret")).token == "secret"
    monkeypatch.setenv("PERCEIVERS_TOKEN", "of-environment")
    assert with_token(settings).token == "of-environment"
    assert with_token(ServerSettings("run", host=host, no_token=True)).token is None


@pytest.mark.parametrize("token", ["", " ", "caf\u00e9", "a\nb"])
def test_a_token_that_nobody_can_send_is_refused(token, tmp_path, capsys, monkeypatch):
    assert main(["serve", str(tmp_path), "--token", token]) == 2
    assert "printable ASCII characters in --token" in capsys.readouterr().err
    monkeypatch.setenv("PERCEIVERS_TOKEN", token)
    assert main(["serve", str(tmp_path)]) == 2
    assert "in PERCEIVERS_TOKEN, got" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--token", "a", "--no-token"), "got both"),
        (("--allowed-origins", "birds.example"), "https://birds.example, got 'birds.example'"),
        (("--allowed-origins", "https://birds.example/page"), "without a path"),
    ],
)
def test_settings_that_contradict_are_wrong_arguments(flags, words, tmp_path, capsys):
    assert main(["serve", str(tmp_path), *flags]) == 2
    assert words in capsys.readouterr().err


def test_names_of_the_server_are_accepted():
    local = rules()
    assert accepted(local, "localhost:8000")
    assert accepted(local, "[::1]:8000")
    assert not accepted(local, "192.168.1.5")
    assert not accepted(local, "")
    open_to_all = rules(host="0.0.0.0", no_token=True)
    assert accepted(open_to_all, "192.168.1.5:8000")
    assert accepted(open_to_all, "[fe80::1]:8000")
    assert not accepted(open_to_all, "evil.example")
    assert accepted(rules(host="birds.example", no_token=True), "BIRDS.example:80")


def test_hosts_are_limited_by_a_list_or_opened_by_a_token():
    named = rules(host="0.0.0.0", token="secret", allowed_hosts=("birds.example",))
    assert accepted(named, "birds.example")
    assert not accepted(named, "evil.example")
    assert accepted(rules(host="0.0.0.0", token="secret"), "evil.example")
    assert accepted(rules(allowed_hosts=("*",)), "evil.example")


def test_pages_of_a_list_may_send_forms():
    listed = rules(allowed_origins=("https://Birds.example/",))
    for headers in ({}, {"sec-fetch-site": "cross-site"}):
        for origin, status in (("https://birds.example", None), ("https://evil.example", 403)):
            sent = {"host": "localhost", "origin": origin, **headers}
            refused = listed.refusal("POST", sent)
            assert (refused and refused[0]) == status
            assert listed.refusal("GET", sent) is None
    everybody = rules(allowed_origins=("*",))
    sent = {"host": "localhost", "origin": "https://evil.example"}
    assert everybody.refusal("POST", sent) is None
