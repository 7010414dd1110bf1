"""TLS with certificates of an authority of the sandbox's own."""

import ssl


class Authority:
    """A certificate authority for one sandbox; clients trust it only if they are told to.

    Its keys are made anew each time and stay in memory, except while OpenSSL reads them from a temporary file with mode
    0600.

    Raises:
        ImportError: trustme is not installed.
    """

    def __init__(self) -> None:
        try:
            import trustme
        except ImportError as error:
            raise ImportError("TLS needs trustme: pip install 'smilejobs[sandbox]'") from error
        self._ca = trustme.CA(organization_name="smilejobs sandbox")

    @property
    def pem(self) -> bytes:
        """The certificate that a client has to trust."""
        return self._ca.cert_pem.bytes()

    def context(self, *hosts: str) -> ssl.SSLContext:
        """Return a server-side TLS context whose certificate is valid for this machine and for *hosts*.

        Raises:
            ValueError: A certificate cannot name such a host.
        """
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        try:
            certificate = self._ca.issue_cert(*dict.fromkeys(("localhost", "127.0.0.1", "::1", *hosts)))
        except ValueError as error:
            raise ValueError(f"tls: there can be no certificate for {', '.join(map(repr, hosts))}: {error}") from None
        certificate.configure_cert(context)
        return context
