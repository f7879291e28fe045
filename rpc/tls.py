"""TLS between servers: who we are, and whom we believe."""

from __future__ import annotations

from pathlib import Path

import grpc
import structlog

from rpc.settings import CommonSettings, check_key_pair

log = structlog.get_logger()


def server_credentials(settings: CommonSettings) -> grpc.ServerCredentials | None:
    """What a server answers with; None: in the clear. Its files are read for each new connection, so they may be replaced."""
    chain, key = settings.tls_certificate_file, settings.tls_key_file
    if chain is None or key is None:
        return None

    def read() -> grpc.ServerCertificateConfiguration:
        check_key_pair(chain, key)
        return grpc.ssl_server_certificate_configuration(
            [(key.read_bytes(), chain.read_bytes())], root_certificates=_text(settings.tls_ca_file)
        )

    held = read()

    def read_again() -> grpc.ServerCertificateConfiguration:
        nonlocal held
        try:
            held = read()
        except (OSError, ValueError) as error:
            log.error("certificate not taken", error=str(error))
        return held

    return grpc.dynamic_ssl_server_credentials(
        held, read_again, require_client_authentication=settings.tls_require_client
    )


def channel_credentials(settings: CommonSettings) -> grpc.ChannelCredentials | None:
    """What our calls are made with; None: in the clear. Read once: a new certificate of our own needs a restart."""
    if settings.tls_ca_file is None:
        return None
    return grpc.ssl_channel_credentials(
        _text(settings.tls_ca_file), _text(settings.tls_key_file), _text(settings.tls_certificate_file)
    )


def _text(path: Path | None) -> bytes | None:
    return path.read_bytes() if path else None
