"""Who asks, and whom: credentials, hosts, and reading both from a mapping such as the environment."""

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
    """The partner's half of every signature.

    Args:
        partner_id: As the vendor's portal shows it, a string: "085" and "85" sign differently.
        api_key: The signature key of one environment, as the portal shows it (it is not decoded). Never in a repr.

    Raises:
        TypeError: One of them is not a string.
        ValueError: One of them is empty, stands in quotation marks, or holds white space or a character that cannot be
            seen (what is read from a file or copied from a page often does).
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
            # Crash reporters copy the variables of every frame of a traceback. So here, and in all that follows.
            del partner_id, api_key


def _check(name: str, value: object) -> None:
    """Raise an error that names the argument, unless *value* can be a credential."""
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
    """What a client needs to know before its first request."""

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
    """Check the arguments that say who asks whom.

    Raises:
        TypeError: A wrong type.
        ValueError: Anything else that can never be right; the text names the argument.
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
        return Settings(credentials, _checked_url(base_url, insecure_http=insecure_http))
    finally:
        del base_url  # what is refused may hold a password


class EnvironmentArguments(TypedDict):
    """The arguments of a client that come from the environment."""

    partner_id: str
    api_key: str
    environment: NotRequired[Environment]
    base_url: NotRequired[str]


def arguments_from(mapping: Mapping[str, str], *, insecure_http: bool = False) -> EnvironmentArguments:
    """Return the arguments of a client that a mapping such as `os.environ` holds. Empty values count as missing.

    Raises:
        ValueError: One is missing or can never be right; the text names the argument and its variable.
    """
    arguments = _arguments(mapping, insecure_http=insecure_http)
    del mapping
    if isinstance(arguments, ValueError):
        raise arguments
    return arguments


def _arguments(mapping: Mapping[str, str], *, insecure_http: bool) -> EnvironmentArguments | ValueError:
    found = _found(mapping, _VARIABLES)
    missing = [argument for argument in _CREDENTIALS if argument not in found]
    if not found.keys() & {"environment", "base_url"}:
        missing.append("environment")
    if missing:
        return ValueError(
            f"{_not_set(missing, mapping)}; SMILE_ENVIRONMENT is 'sandbox' or 'production', "
            "and SMILE_BASE_URL (the argument base_url) may stand in its place"
        )
    arguments = cast("EnvironmentArguments", found)
    try:
        settings(**arguments, insecure_http=insecure_http)
    except ValueError as error:
        return ValueError(f"{error} {_read_from(found)}")
    return arguments


def credentials_from(mapping: Mapping[str, str]) -> Credentials:
    """Return the credentials that a mapping such as `os.environ` holds. Empty values count as missing.

    Raises:
        ValueError: One is missing or can never be right; the text names the argument and its variable.
    """
    credentials = _credentials(mapping)
    del mapping
    if isinstance(credentials, ValueError):
        raise credentials
    return credentials


def _credentials(mapping: Mapping[str, str]) -> Credentials | ValueError:
    found = _found(mapping, _CREDENTIALS)
    if len(found) < len(_CREDENTIALS):
        return ValueError(_not_set([argument for argument in _CREDENTIALS if argument not in found], mapping))
    try:
        return Credentials(**found)
    except ValueError as error:
        return ValueError(f"{error} {_read_from(found)}")


def _found(mapping: Mapping[str, str], arguments: Iterable[str]) -> dict[str, str]:
    return {argument: mapping[_VARIABLES[argument]] for argument in arguments if mapping.get(_VARIABLES[argument])}


def _not_set(missing: Collection[str], mapping: Iterable[str]) -> str:
    what = ", ".join(f"{_VARIABLES[argument]} (the argument {argument})" for argument in missing)
    names = {_VARIABLES[argument] for argument in missing}
    for name in mapping:
        readable = "".join(filter(_is_readable, name))
        if readable != name and readable in names:
            what = f"{what}; a character that cannot be seen is in the name of {readable}: write its file without a BOM"
    return f"not set in the environment: {what}"


def _read_from(found: Iterable[str]) -> str:
    return f"(read from {', '.join(_VARIABLES[argument] for argument in found)})"


def _check_characters(value: str, name: str) -> None:
    """Raise ValueError if *value* has what no id, key or URL has, but the file or the page that it was copied from."""
    try:
        if value[:1] in _QUOTATION_MARKS or value[-1:] in _QUOTATION_MARKS:
            raise ValueError(
                f"{name} begins or ends with a quotation mark: write it without "
                "(docker's --env-file keeps quotation marks)"
            )
        for character in value:
            if not _is_readable(character):
                raise ValueError(
                    f"{name} holds white space or a character that cannot be seen (U+{ord(character):04X}): remove it"
                )
    finally:
        del value


def _is_readable(character: str) -> bool:
    return character.isprintable() and character != " "


def split_url(url: object, name: str) -> SplitResult:
    """Return the parts of an absolute URL, of ``https://`` or ``http://``, that names a host and no user.

    Args:
        url: What is to be a URL.
        name: What the caller calls the argument; it opens the error text.

    Raises:
        TypeError: It is no string.
        ValueError: It is no such URL.
    """
    if not isinstance(url, str):
        raise TypeError(f"{name} must be a string, not {type(url).__name__}")
    parts = _parts_of(url)
    fault = _fault_of(url, parts)
    del url  # it may hold a password: crash reporters copy the locals of each frame of a traceback
    if parts is None or fault:
        del parts
        raise ValueError(f"{name} {fault}")
    return parts


def _parts_of(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        _ = parts.hostname, parts.port
    except ValueError:
        return None
    return parts


def _fault_of(url: str, parts: SplitResult | None) -> str:
    """Return what is wrong with a URL, in words that quote nothing of it; nothing if it is right."""
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
    """Say whether *host*, "localhost" or an IP address, is this machine; other names are not looked up."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _checked_url(base_url: str | None, *, insecure_http: bool) -> str:
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
            "base_url must be https: whoever sees one signed request can sign any other; "
            "plain http is for loopback, or for a network that you trust with insecure_http=True"
        )
    return url.rstrip("/")


# urlsplit reads the host of "[::1].example.org" as "::1".
_NETLOC = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z_-]{1,63}(\.[0-9A-Za-z_-]{1,63})*\.?)(:[0-9]*)?")
