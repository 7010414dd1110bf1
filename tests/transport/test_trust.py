"""The certificate authorities that the environment names, and what is said of those that cannot be used."""

import sys
from pathlib import Path

import httpx
import pytest
import trustme

from smilejobs import Client
from smilejobs.transport.trust import load_trust
from tests.helpers.commands import CLIENT_COMMANDS, Command, command_alone

__all__ = ["command_alone"]

PEM = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


@pytest.fixture(autouse=True)
def _files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    Path("folder").mkdir()
    Path("empty.pem").touch()
    Path("text.pem").write_text("no certificate\n")
    Path("broken.pem").write_text(PEM)
    Path("folder", "ca.pem").write_text(PEM)
    Path("in.csv").write_text("user_id,job_id\n")


@pytest.mark.parametrize(
    ("variable", "path", "why"),
    [
        ("SSL_CERT_FILE", "nowhere.pem", "No such file or directory"),
        ("SSL_CERT_FILE", "folder", "directory" if sys.platform != "win32" else ""),
        ("SSL_CERT_FILE", "empty.pem", "no certificate in PEM format"),
        ("SSL_CERT_FILE", "text.pem", "no certificate in PEM format"),
        ("SSL_CERT_FILE", "broken.pem", "no certificate in PEM format"),
        ("SSL_CERT_DIR", "nowhere", "no folder of certificates"),
        ("SSL_CERT_DIR", "empty.pem", "no folder of certificates"),
        ("SSL_CERT_DIR", "folder", "openssl rehash"),
    ],
)
def test_a_path_that_holds_no_certificates(variable: str, path: str, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client is not made, and the text names variable, path and reason."""
    monkeypatch.setenv(variable, path)
    with pytest.raises(ValueError, match=f"^{variable}: '{path}'.*{why}.*; correct the path, or unset the variable$"):
        Client(partner_id="085", api_key="key", environment="sandbox")
    Client(partner_id="085", api_key="key", base_url="http://127.0.0.1:1/v1")


@pytest.mark.parametrize("arguments", CLIENT_COMMANDS, ids=lambda arguments: arguments[0])
@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
def test_commands_say_so_in_one_line(command_alone: Command, arguments: tuple[str, ...], variable: str) -> None:
    """With the exit code of wrong usage, before anything is polled."""
    answer = command_alone(*arguments, **{variable: "empty.pem"})
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith(f"smilejobs: {variable}: 'empty.pem'")
    assert answer.err.count("\n") == 1


def test_paths_that_hold_certificates(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are used: of a file, of a folder among others, and by default those of certifi."""
    assert len(load_trust().get_ca_certs()) > 50
    trustme.CA().cert_pem.write_to_path("folder/0123abcd.0")
    monkeypatch.setenv("SSL_CERT_DIR", "nowhere:folder" if sys.platform != "win32" else "nowhere;folder")
    assert load_trust().get_ca_certs() == []  # OpenSSL reads a folder as it needs it
    monkeypatch.setenv("SSL_CERT_FILE", "folder/0123abcd.0")
    assert len(load_trust().get_ca_certs()) == 1


def test_a_bundle_of_certifi_that_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable is to blame, so the error stays as it is."""

    def broken() -> None:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(httpx, "create_ssl_context", broken)
    with pytest.raises(FileNotFoundError):
        load_trust()
