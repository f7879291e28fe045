"""TLS between servers: certificates and trusted authorities."""

from __future__ import annotations

from pathlib import Path

import grpc
import structlog

from rpc.process.settings import CommonSettings, TlsSettings, check_key_pair

log = structlog.get_logger()


def server_credentials(settings: CommonSettings) -> grpc.ServerCredentials | None:
    """Returns a server's credentials; None: no TLS. Their files are read again for each new connection."""
    chain, key = settings.tls_certificate_file, settings.tls_key_file
    if chain is None or key is None:
        return None

    def read() -> grpc.ServerCertificateConfiguration:
        check_key_pair(chain, key)
        return grpc.ssl_server_certificate_configuration(
            [(key.read_bytes(), chain.read_bytes())], root_certificates=_text(settings.tls_ca_file)
        )

    current = read()

    def read_again() -> grpc.ServerCertificateConfiguration:
        nonlocal current
        try:
            current = read()
        except (OSError, ValueError) as error:
            log.error("certificate_reload_failed", error=str(error))
        return current

    return grpc.dynamic_ssl_server_credentials(
        current, read_again, require_client_authentication=settings.tls_require_client
    )


def channel_credentials(settings: TlsSettings) -> grpc.ChannelCredentials | None:
    """Returns the credentials of client channels; None: no TLS. Read once: a new certificate needs a restart."""
    if settings.tls_ca_file is None:
        return None
    return grpc.ssl_channel_credentials(
        _text(settings.tls_ca_file), _text(settings.tls_key_file), _text(settings.tls_certificate_file)
    )


def _text(path: Path | None) -> bytes | None:
    return path.read_bytes() if path else None
