"""The certificate that connections are encrypted with, and its replacement."""

from __future__ import annotations

import hashlib
import ssl

from exchange.host.market_file import SettingsError
from exchange.host.settings import Settings


class Certificate:
    """Certificate and private key, read again when their files change.

    ``context`` is made of the last pair that was good, for connections that
    begin from now on. ``problem`` says what is wrong with the files, if
    anything is. One thread may call `refresh` while another uses them.
    """

    def __init__(self, settings: Settings, context: ssl.SSLContext) -> None:
        self.context = context
        self.problem: str | None = None
        self.path = settings.tls_cert
        self._settings = settings
        self._seen = self._digest()

    @classmethod
    def of(cls, settings: Settings) -> Certificate | None:
        """Return the certificate that is set, if any; raises SettingsError."""
        context = settings.tls()
        return None if context is None else cls(settings, context)

    def refresh(self) -> bool:
        """Look at the files; return whether there is another ``context``.

        A pair that does not fit, as while it is being written, changes
        nothing but ``problem``.
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
