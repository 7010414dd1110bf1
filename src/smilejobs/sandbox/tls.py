"""TLS with a certificate of one's own making, for clients that insist on https."""

import ssl


class Authority:
    """A certificate authority for one sandbox, whom nobody trusts unless told to.

    Its key and those of its certificates are made anew each time and stay in memory, but for the moment at which
    OpenSSL reads them from a temporary file that only this user may read.

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
        """Return a server's side of TLS, for this machine and for *hosts*.

        Raises:
            ValueError: There can be no certificate for such a host.
        """
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        try:
            certificate = self._ca.issue_cert(*dict.fromkeys(("localhost", "127.0.0.1", "::1", *hosts)))
        except ValueError as error:
            raise ValueError(f"tls: there can be no certificate for {', '.join(map(repr, hosts))}: {error}") from None
        certificate.configure_cert(context)
        return context
