"""The certificate of TLS connections, and its replacement."""

from __future__ import annotations

import hashlib
import ssl

from exchange.host.market_file import SettingsError
from exchange.host.settings import Settings


class Certificate:
    """Certificate and private key, read again when their files change.

    ``context`` is made of the last good pair, for new connections. ``problem``
    describes an error of the files, or is None. One thread may call `refresh`
    while another uses both.
    """

    def __init__(self, settings: Settings, context: ssl.SSLContext) -> None:
        self.context = context
        self.problem: str | None = None
        self.path = settings.tls_cert
        self._settings = settings
        self._seen = self._digest()

    @classmethod
    def of(cls, settings: Settings) -> Certificate | None:
        """Return the certificate of the settings; raise SettingsError."""
        context = settings.tls()
        return None if context is None else cls(settings, context)

    def refresh(self) -> bool:
        """Look at the files; return whether ``context`` is a new one.

        A pair that does not match, perhaps because it is being written,
        changes only ``problem``.
        """
        try:
            seen = self._digest()
            if seen == self._seen:
                self.problem = None
                return False
            context = self._settings.tls()
            assert context is not None
        except (OSError, SettingsError) as error:
            self.problem = str(error)
            return False
        self._seen, self.context, self.problem = seen, context, None
        return True

    def _digest(self) -> bytes:
        """Return the SHA-256 of both files."""
        digest = hashlib.sha256()
        for path in (self._settings.tls_cert, self._settings.tls_key):
            assert path is not None
            content = path.read_bytes()
            digest.update(len(content).to_bytes(8) + content)
        return digest.digest()
