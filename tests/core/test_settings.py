"""Credentials and hosts."""

from typing import Any

import pytest

from smilejobs import Client, Credentials
from smilejobs.settings import HOSTS, Settings, arguments_from, credentials_from, settings
from tests.helpers.leaks import assert_keeps_secrets

KEY = "fictional-key"


def checked(**more: Any) -> Settings:
    given = {"partner_id": "085", "api_key": KEY, "environment": None, "base_url": None, "insecure_http": False}
    return settings(**{**given, **more})


def test_credentials_are_kept_as_they_are_and_never_shown() -> None:
    """Zeros, signs and letters are unchanged; a repr shows neither the key nor the partner id."""
    credentials = Credentials("0850", "kB7-Öß/+==")
    assert (credentials.partner_id, credentials.api_key) == ("0850", "kB7-Öß/+==")
    shown = f"{credentials} {credentials!r} {Settings(credentials, 'https://a.example/v1')!r}"
    assert "0850" not in shown
    assert "kB7" not in shown
    with pytest.raises(AttributeError):
        credentials.api_key = "x"  # type: ignore[misc]  # credentials are frozen: that is what is tested


@pytest.mark.parametrize("value", [85, None, b"085", True, ["085"]])
def test_credentials_are_strings(value: Any) -> None:
    """Any other type is a TypeError that names the argument; a number has lost its zeros, and the text says so."""
    with pytest.raises(TypeError, match="^partner_id must be a string, not .*leading zeros"):
        Credentials(value, KEY)
    with pytest.raises(TypeError, match="^api_key must be a string, not") as caught:
        Credentials("085", value)
    assert "zeros" not in str(caught.value)


@pytest.mark.parametrize(
    "value",
    [
        *("", " ", "marker\n", "\tmarker", "marker ", "mar ker", "\u00a0marker", "marker\ud800"),
        *("\ufeffmarker", "mar\u200bker", "marker\u2060", "mar\u00adker", "marker\r", "mar\x00ker"),
        *(
            '"marker"',
            "'marker'",
            '"marker',
            "marker'",
            '""',
            '"',
            "`marker`",
            "\u201cmarker\u201d",
            "\u00abmarker\u00bb",
        ),
    ],
)
def test_credentials_that_can_never_be_right_are_value_errors(value: str) -> None:
    """Empty, quoted, with white space or an invisible character, or half a surrogate pair; no text holds it."""
    with pytest.raises(ValueError, match="^partner_id") as partner:
        Credentials(value, KEY)
    with pytest.raises(ValueError, match="^api_key") as key:
        Credentials("085", value)
    assert "marker" not in f"{partner.value} {key.value}"
    assert (key.value.__cause__, key.value.__context__) == (None, None)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ('"marker"', r"^api_key begins or ends with a quotation mark: .*--env-file"),
        ("marker ", r"^api_key holds white space or an invisible character \(U\+0020\): remove it$"),
        ("\ufeffmarker", r"^api_key holds .*\(U\+FEFF\)"),
        ("mar\u200bker", r"^api_key holds .*\(U\+200B\)"),
    ],
)
def test_what_is_wrong_with_credentials_is_said(value: str, text: str) -> None:
    """An invisible character is named by its code point."""
    with pytest.raises(ValueError, match=text):
        Credentials("085", value)


def test_quotation_marks_inside_are_characters_like_others() -> None:
    """They are refused only at the beginning and at the end."""
    assert Credentials("085", "a'b").api_key == "a'b"


@pytest.mark.parametrize(
    ("given", "name"),
    [({"environment": "'sandbox'"}, "environment"), ({"base_url": '"https://a.example/v1"'}, "base_url")],
)
def test_quotation_marks_around_the_other_settings_are_named(given: dict[str, str], name: str) -> None:
    """A file that keeps quotation marks keeps them in every value."""
    with pytest.raises(ValueError, match=f"^{name} begins or ends with a quotation mark"):
        checked(**given)


@pytest.mark.parametrize(
    ("environment", "url"),
    [("sandbox", "https://testapi.smileidentity.com/v1"), ("production", "https://api.smileidentity.com/v1")],
)
def test_environments_have_their_hosts(environment: str, url: str) -> None:
    """The two hosts are those of the vendor's clients."""
    assert checked(environment=environment) == Settings(Credentials("085", KEY), url)
    assert HOSTS[environment] == url


@pytest.mark.parametrize("given", [{}, {"environment": "sandbox", "base_url": "https://a.example/v1"}])
def test_exactly_one_of_environment_and_base_url(given: dict[str, str]) -> None:
    """Neither and both are refused, and the text names both."""
    with pytest.raises(ValueError, match=r"exactly one of environment .* and base_url"):
        checked(**given)


@pytest.mark.parametrize("environment", ["", "Sandbox", "live", "0"])
def test_other_environments_are_refused(environment: str) -> None:
    """There are two, and the text names them."""
    with pytest.raises(ValueError, match="^environment must be 'sandbox' or 'production'"):
        checked(environment=environment)


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("https://a.example/v1", "https://a.example/v1"),
        ("https://a.example/v1/", "https://a.example/v1"),
        ("https://a.example:8443/behind/proxy/v1", "https://a.example:8443/behind/proxy/v1"),
        ("http://localhost:8787/v1", "http://localhost:8787/v1"),
        ("http://127.0.0.1/v1", "http://127.0.0.1/v1"),
        ("http://127.8.9.10:80/v1/", "http://127.8.9.10:80/v1"),
        ("http://[::1]:8787/v1", "http://[::1]:8787/v1"),
        ("https://[2001:db8::1]/v1", "https://[2001:db8::1]/v1"),
    ],
)
def test_other_urls_of_the_api(url: str, kept: str) -> None:
    """Any https URL that ends in /v1 is accepted, and plain http on loopback."""
    assert checked(base_url=url).base_url == kept


@pytest.mark.parametrize(
    "url",
    [
        *(
            "",
            "/v1",
            "a.example/v1",
            "//a.example/v1",
            "ftp://a.example/v1",
            "https:///v1",
            "https://:443/v1",
            "https:/v1",
        ),
        *("https://a.example:99999/v1", "https://a.example:x/v1", "https://[::1/v1", "https://[zz]/v1"),
        *("https://a.example", "https://a.example/", "https://a.example/v2", "https://a.example/xv1"),
        *(
            "https://a.example/v1/job_status",
            "https://a.example/v1?",
            "https://a.example/v1?a=/v1",
            "https://a.example/#/v1",
        ),
        *("https://marker@a.example/v1", "https://u:marker@a.example/v1", "https://@a.example/v1"),
        *("https://ä.example/v1", "https://a.example/v1\n", "https://a.exa\tmple/v1", "https://a.example/\0/v1"),
        *("https://a example/v1", " https://a.example/v1", "https://a.example/v1 "),
    ],
)
@pytest.mark.parametrize("insecure_http", [True, False])
def test_urls_that_can_never_be_right_are_value_errors(url: str, insecure_http: bool) -> None:
    """No absolute URL, a user or a query in it, or no /v1 at its end: the text names the argument."""
    with pytest.raises(ValueError, match="^base_url ") as caught:
        checked(base_url=url, insecure_http=insecure_http)
    assert "marker" not in str(caught.value)


@pytest.mark.parametrize("url", [5, b"https://a.example/v1", ["https://a.example/v1"]])
def test_a_url_is_a_string(url: Any) -> None:
    """Any other type is a TypeError that names the argument."""
    with pytest.raises(TypeError, match="^base_url must be a string"):
        checked(base_url=url)


@pytest.mark.parametrize(
    "host",
    [
        *("a.example", "localhost.a.example", "127.0.0.1.a.example", "10.0.0.1", "0.0.0.0", "[::]", "[2001:db8::1]"),
        *("128.0.0.1", "169.254.0.1", "notlocalhost", "1"),
    ],
)
def test_plain_http_is_for_loopback(host: str) -> None:
    """Elsewhere it is refused, unless the argument that the text names allows it."""
    with pytest.raises(ValueError, match="^base_url must be https: .*insecure_http=True"):
        checked(base_url=f"http://{host}/v1")
    assert checked(base_url=f"http://{host}/v1", insecure_http=True).base_url == f"http://{host}/v1"
    with pytest.raises(ValueError, match="^base_url must be https"):
        Client(partner_id="085", api_key=KEY, base_url=f"HTTP://{host}/v1")


ENVIRON = {"SMILE_PARTNER_ID": "085", "SMILE_API_KEY": KEY}


def test_the_environment_gives_the_arguments() -> None:
    """Four variables are four arguments, and all others are ignored."""
    noise = {"HOME": "/", "SMILE_INSECURE_HTTP": "1", "INSECURE_HTTP": "true", "SMILE_RATE": "5"}
    assert arguments_from({**noise, **ENVIRON, "SMILE_ENVIRONMENT": "sandbox"}) == {
        "partner_id": "085",
        "api_key": KEY,
        "environment": "sandbox",
    }
    assert arguments_from({**noise, **ENVIRON, "SMILE_ENVIRONMENT": "", "SMILE_BASE_URL": "https://a.example/v1"}) == {
        "partner_id": "085",
        "api_key": KEY,
        "base_url": "https://a.example/v1",
    }


@pytest.mark.parametrize("value", [None, ""])
@pytest.mark.parametrize(
    ("variable", "argument"),
    [("SMILE_PARTNER_ID", "partner_id"), ("SMILE_API_KEY", "api_key"), ("SMILE_ENVIRONMENT", "environment")],
)
def test_a_missing_variable_is_named_with_its_argument(variable: str, argument: str, value: str | None) -> None:
    """A missing or empty variable is named both ways; others are neither named nor shown."""
    mapping = {**ENVIRON, "SMILE_ENVIRONMENT": "sandbox"}
    del mapping[variable]
    if value is not None:
        mapping[variable] = value
    with pytest.raises(
        ValueError, match=rf"^not set in the environment: {variable} \(the argument {argument}\);"
    ) as caught:
        arguments_from(mapping)
    assert KEY not in str(caught.value)


def test_credentials_alone() -> None:
    """Without a poll the environment is not needed; a missing or invalid credential is named, not shown."""
    assert credentials_from({**ENVIRON, "SMILE_BASE_URL": "no URL"}) == Credentials("085", KEY)
    with pytest.raises(ValueError, match=r"^not set in the environment: SMILE_API_KEY \(the argument api_key\)$"):
        credentials_from({**ENVIRON, "SMILE_API_KEY": ""})
    with pytest.raises(ValueError, match=r"SMILE_PARTNER_ID \(the .*\), SMILE_API_KEY \(the argument api_key\)$"):
        credentials_from({})
    words = r"^api_key holds white space .* remove it \(read from SMILE_PARTNER_ID, SMILE_API_KEY\)$"
    with pytest.raises(ValueError, match=words):
        credentials_from({**ENVIRON, "SMILE_API_KEY": f"{KEY}\n"})


def test_a_bom_in_the_name_of_a_variable_is_noticed() -> None:
    """A BOM at the start of a file becomes part of the first name, so that its variable seems to be missing."""
    mapping = {"\ufeffSMILE_PARTNER_ID": "085", "SMILE_API_KEY": KEY, "HOME": "/", "\ufeffHOME": "/"}
    words = r"^not set in the environment: SMILE_PARTNER_ID \(.*\); the name of SMILE_PARTNER_ID holds"
    for read_from in (arguments_from, credentials_from):
        with pytest.raises(ValueError, match=words) as caught:
            read_from(mapping)
        assert "085" not in str(caught.value)
        assert "without a BOM" in str(caught.value)


def test_all_missing_variables_are_named_at_once() -> None:
    """One error is enough to set all of them; the alternative to the environment, the URL, is named too."""
    with pytest.raises(
        ValueError, match="SMILE_PARTNER_ID.*SMILE_API_KEY.*SMILE_ENVIRONMENT.*SMILE_BASE_URL.*base_url"
    ):
        arguments_from({})


WRONG: list[dict[str, Any]] = [
    {"api_key": f"{KEY}\n"},
    {"api_key": f"{KEY}\ud800"},
    {"api_key": f'"{KEY}"'},
    {"api_key": KEY.encode()},
    {"api_key": [KEY]},
    {"partner_id": ""},
    {"partner_id": 85},
    {"environment": "Sandbox"},
    {"environment": None},
    {"environment": None, "base_url": "http://a.example/v1"},
]


@pytest.mark.parametrize("more", WRONG)
def test_an_error_about_arguments_keeps_the_key_out_of_reach(more: dict[str, Any]) -> None:
    """Crash reporters copy the variables of the frames, and no frame holds the key."""
    arguments: dict[str, Any] = {"partner_id": "085", "api_key": KEY, "environment": "sandbox", **more}
    with pytest.raises((ValueError, TypeError)) as caught:
        Client(**arguments)
    assert_keeps_secrets(caught.value, KEY)
    if more.keys() <= {"partner_id", "api_key"}:
        with pytest.raises((ValueError, TypeError)) as directly:
            Credentials(arguments["partner_id"], arguments["api_key"])
        assert_keeps_secrets(directly.value, KEY)


@pytest.mark.parametrize("more", [{"attempts": 0}, {"rate": -1}, {"hooks": 5}, {"transport": "smoke"}, {"now": None}])
def test_an_error_about_any_other_argument_does_so_too(more: dict[str, Any]) -> None:
    """It is raised after the key has been passed on."""
    with pytest.raises((ValueError, TypeError)) as caught:
        Client(**{"partner_id": "085", "api_key": KEY, "environment": "sandbox", **more})
    assert_keeps_secrets(caught.value, KEY)


@pytest.mark.parametrize(
    "more",
    [{"SMILE_API_KEY": f"{KEY} "}, {"SMILE_PARTNER_ID": ""}, {"SMILE_PARTNER_ID": "085 "}, {"SMILE_ENVIRONMENT": "x"}],
)
def test_an_error_about_the_environment_keeps_its_variables_out_of_reach(more: dict[str, str]) -> None:
    """The mapping holds all variables, the key among them."""
    mapping = {**ENVIRON, "SMILE_ENVIRONMENT": "sandbox", **more}
    with pytest.raises(ValueError, match="SMILE_") as caught:
        arguments_from(mapping)
    assert caught.value.__context__ is None
    assert_keeps_secrets(caught.value, KEY)
    if "SMILE_ENVIRONMENT" not in more:
        with pytest.raises(ValueError, match="SMILE_") as alone:
            credentials_from(mapping)
        assert_keeps_secrets(alone.value, KEY)


@pytest.mark.parametrize("url", ["https://me:{}@example.org/v1", "https://me:{}@[/v1", "ftp://me:{}@example.org/v1"])
def test_a_password_in_base_url_is_not_reachable(url: str) -> None:
    """The URL is refused, and neither a frame nor a context of the error holds it."""
    with pytest.raises(ValueError, match="^base_url") as caught:
        Client(partner_id="085", api_key="key", base_url=url.format("Quartz-Lemon"))
    assert_keeps_secrets(caught.value, "Quartz-Lemon")
