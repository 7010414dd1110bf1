"""Credentials and hosts, and how to read them from a mapping such as the environment."""

import ipaddress
import re
from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Literal, NotRequired, TypedDict, cast
from urllib.parse import SplitResult, urlsplit

from attrs import field, frozen

Environment = Literal["sandbox", "production"]

HOSTS: Mapping[str, str] = MappingProxyType(
    {
        "sandbox": "https://testapi.smileidentity.com/v1",
        "production": "https://api.smileidentity.com/v1",
    }
)
"""Base URLs by environment. Source: the vendor's client libraries."""

_VARIABLES: Mapping[str, str] = MappingProxyType(
    {
        "partner_id": "SMILE_PARTNER_ID",
        "api_key": "SMILE_API_KEY",
        "environment": "SMILE_ENVIRONMENT",
        "base_url": "SMILE_BASE_URL",
    }
)
_CREDENTIALS = ("partner_id", "api_key")
_QUOTATION_MARKS = tuple("\"'`\u00ab\u00bb\u2018\u2019\u201a\u201c\u201d\u201e")


@frozen(init=False)
class Credentials:
    """The partner id and the API key, which make every signature.

    Args:
        partner_id: The partner id as the vendor's portal shows it, a string: "085" and "85" make different signatures.
        api_key: The signature key of one environment as the portal shows it; it is not decoded and not in the repr.

    Raises:
        TypeError: An argument is not a string.
        ValueError: An argument is empty, begins or ends with a quotation mark, or holds white space or an invisible
            character, as values from files and web pages sometimes do.
    """

    partner_id: str = field(repr=False)
    api_key: str = field(repr=False)

    def __init__(self, partner_id: str, api_key: str) -> None:
        try:
            _check("partner_id", partner_id)
            _check("api_key", api_key)
            object.__setattr__(self, "partner_id", partner_id)
            object.__setattr__(self, "api_key", api_key)
        finally:
            # Crash reporters copy the variables of every frame of a traceback. The same holds for each del below.
            del partner_id, api_key


def _check(name: str, value: object) -> None:
    """Raise TypeError or ValueError, with the name of the argument, unless *value* can be a credential."""
    try:
        if not isinstance(value, str):
            hint = "; write it in quotes, leading zeros included" if name == "partner_id" else ""
            raise TypeError(f"{name} must be a string, not {type(value).__name__}{hint}")
        if not value:
            raise ValueError(f"{name} must not be empty")
        _check_characters(value, name)
    finally:
        del value


@frozen
class Settings:
    """The credentials and the base URL of a client."""

    credentials: Credentials
    base_url: str


def settings(
    *,
    partner_id: str,
    api_key: str,
    environment: str | None = None,
    base_url: str | None = None,
    insecure_http: bool = False,
) -> Settings:
    """Check the arguments for credentials and host, and return them as `Settings`.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is missing or invalid; the text names it.
    """
    try:
        credentials = Credentials(partner_id, api_key)
    finally:
        del partner_id, api_key
    if (environment is None) == (base_url is None):
        raise ValueError("give exactly one of environment ('sandbox' or 'production') and base_url")
    if environment is not None:
        _check_characters(environment, "environment")
        if environment not in tuple(HOSTS):
            raise ValueError("environment must be 'sandbox' or 'production'")
        return Settings(credentials, HOSTS[environment])
    try:
        if isinstance(base_url, str):
            _check_characters(base_url, "base_url")
        return Settings(credentials, _check_url(base_url, insecure_http=insecure_http))
    finally:
        del base_url  # a refused URL may hold a password


class EnvironmentArguments(TypedDict):
    """The arguments of a client that come from the environment."""

    partner_id: str
    api_key: str
    environment: NotRequired[Environment]
    base_url: NotRequired[str]


def arguments_from(mapping: Mapping[str, str], *, insecure_http: bool = False) -> EnvironmentArguments:
    """Return the arguments of a client from a mapping such as `os.environ`. Empty values count as missing.

    Raises:
        ValueError: An argument is missing or invalid; the text names it and its variable.
    """
    arguments = _read_arguments(mapping, insecure_http=insecure_http)
    del mapping
    if isinstance(arguments, ValueError):
        raise arguments
    return arguments


def _read_arguments(mapping: Mapping[str, str], *, insecure_http: bool) -> EnvironmentArguments | ValueError:
    found = _find(mapping, _VARIABLES)
    missing = [argument for argument in _CREDENTIALS if argument not in found]
    if not found.keys() & {"environment", "base_url"}:
        missing.append("environment")
    if missing:
        return ValueError(
            f"{_describe_missing(missing, mapping)}; SMILE_ENVIRONMENT is 'sandbox' or 'production', "
            "and SMILE_BASE_URL (the argument base_url) may stand in its place"
        )
    arguments = cast("EnvironmentArguments", found)
    try:
        settings(**arguments, insecure_http=insecure_http)
    except ValueError as error:
        return ValueError(f"{error} {_name_variables(found)}")
    return arguments


def credentials_from(mapping: Mapping[str, str]) -> Credentials:
    """Return the credentials from a mapping such as `os.environ`. Empty values count as missing.

    Raises:
        ValueError: A credential is missing or invalid; the text names the argument and its variable.
    """
    credentials = _read_credentials(mapping)
    del mapping
    if isinstance(credentials, ValueError):
        raise credentials
    return credentials


def _read_credentials(mapping: Mapping[str, str]) -> Credentials | ValueError:
    found = _find(mapping, _CREDENTIALS)
    if len(found) < len(_CREDENTIALS):
        return ValueError(_describe_missing([argument for argument in _CREDENTIALS if argument not in found], mapping))
    try:
        return Credentials(**found)
    except ValueError as error:
        return ValueError(f"{error} {_name_variables(found)}")


def _find(mapping: Mapping[str, str], arguments: Iterable[str]) -> dict[str, str]:
    return {argument: mapping[_VARIABLES[argument]] for argument in arguments if mapping.get(_VARIABLES[argument])}


def _describe_missing(missing: Collection[str], mapping: Iterable[str]) -> str:
    what = ", ".join(f"{_VARIABLES[argument]} (the argument {argument})" for argument in missing)
    names = {_VARIABLES[argument] for argument in missing}
    for name in mapping:
        readable = "".join(filter(_is_readable, name))
        if readable != name and readable in names:
            what = f"{what}; the name of {readable} holds an invisible character: save its file without a BOM"
    return f"not set in the environment: {what}"


def _name_variables(found: Iterable[str]) -> str:
    return f"(read from {', '.join(_VARIABLES[argument] for argument in found)})"


def _check_characters(value: str, name: str) -> None:
    """Raise ValueError if *value* is in quotation marks, or holds white space or an invisible character."""
    try:
        if value[:1] in _QUOTATION_MARKS or value[-1:] in _QUOTATION_MARKS:
            raise ValueError(
                f"{name} begins or ends with a quotation mark: remove it (docker's --env-file keeps quotation marks)"
            )
        for character in value:
            if not _is_readable(character):
                raise ValueError(
                    f"{name} holds white space or an invisible character (U+{ord(character):04X}): remove it"
                )
    finally:
        del value


def _is_readable(character: str) -> bool:
    return character.isprintable() and character != " "


def split_url(url: object, name: str) -> SplitResult:
    """Return the parts of an absolute ``https://`` or ``http://`` URL with a host and without a user name.

    Args:
        url: The URL.
        name: The name of the argument; the error text begins with it.

    Raises:
        TypeError: *url* is not a string.
        ValueError: *url* is not such a URL.
    """
    if not isinstance(url, str):
        raise TypeError(f"{name} must be a string, not {type(url).__name__}")
    parts = _split(url)
    fault = _find_fault(url, parts)
    del url  # it may hold a password
    if parts is None or fault:
        del parts
        raise ValueError(f"{name} {fault}")
    return parts


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        _ = parts.hostname, parts.port
    except ValueError:
        return None
    return parts


def _find_fault(url: str, parts: SplitResult | None) -> str:
    """Return what is wrong with a URL, without quoting it; "" if nothing is."""
    if parts is None:
        return "is not a URL"
    if (
        parts.scheme not in ("https", "http")
        or not parts.hostname
        or not (url.isascii() and url.isprintable())
        or " " in url
    ):
        return "must be an absolute https:// URL"
    if "@" in parts.netloc or "#" in url:
        return "must not hold a user name or a fragment"
    return "" if _NETLOC.fullmatch(parts.netloc) else "is not a URL"


def is_loopback(host: str) -> bool:
    """Return whether *host* is "localhost" or a loopback IP address; other names are not resolved."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_url(base_url: str | None, *, insecure_http: bool) -> str:
    try:
        parts = split_url(base_url, "base_url")
        url, host = str(base_url), str(parts.hostname)
    finally:
        del base_url
    if "?" in url:
        raise ValueError("base_url must not hold a query")
    if not parts.path.rstrip("/").endswith("/v1"):
        raise ValueError("base_url must end in /v1, for example https://testapi.smileidentity.com/v1")
    if parts.scheme == "http" and not insecure_http and not is_loopback(host):
        raise ValueError(
            "base_url must be https: one request that is read in transit is enough to sign any other; "
            "plain http is for loopback, or with insecure_http=True for a network that you trust"
        )
    return url.rstrip("/")


# A stricter check of the host: urlsplit returns "::1" as the host of "[::1].example.org".
_NETLOC = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z_-]{1,63}(\.[0-9A-Za-z_-]{1,63})*\.?)(:[0-9]*)?")
