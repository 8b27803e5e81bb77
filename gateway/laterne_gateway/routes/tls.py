"""TLS towards brokers and platforms: how it is asked for, and in words what is wrong with the other end's certificate.

A gateway that starts without a clock takes every certificate for not yet valid. It does not pass over that: whoever
has an old key of the broker could take our reports then. It keeps reports, says that the clock is the reason, and asks
again every few seconds, so it connects as soon as something has set the clock; nothing that sets it needs the gateway.
"""

import ssl
from typing import TYPE_CHECKING

from laterne_gateway.clock import credible, rfc3339

if TYPE_CHECKING:
    from laterne_gateway.config import MqttSettings

UNDATED_AGAIN_S = 5.0  # without a clock: 500 gateways after a power cut make 100 handshakes a second for a while
# openssl, x509_vfy.h
NOT_YET_VALID, EXPIRED, NOT_THIS_HOST, NOT_THIS_ADDRESS = 9, 10, 62, 64
UNKNOWN_ISSUER = {2, 7, 18, 19, 20, 21}  # 7: one with the same name has, who is another


def tls_context(settings: "MqttSettings") -> ssl.SSLContext | None:
    """TLS 1.2 or later, the broker's name and certificate checked; None without TLS. Raises OSError, ssl.SSLError."""
    if not settings.tls:
        return None
    for file in (settings.ca_file, settings.certificate_file, settings.key_file):
        if file is not None:
            file.open("rb").close()  # an error of ssl's would not name it
    context = ssl.create_default_context(cafile=None if settings.ca_file is None else str(settings.ca_file))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if settings.certificate_file is not None and settings.key_file is not None:
        # A key with a passphrase must fail, not ask on a terminal that nobody watches.
        context.load_cert_chain(str(settings.certificate_file), str(settings.key_file), password=lambda: b"")
    return context


def certificate_words(why: BaseException, utc_ms: int) -> str | None:
    """What is wrong with the certificate of the other end, and what to do; None: it is not that.

    utc_ms: what this machine's clock says, right or wrong.
    """
    refusal = _refusal_behind(why)
    if refusal is None:
        return None
    now, code = rfc3339(utc_ms)[:10], refusal.verify_code  # the day: an alarm that changes each time fills the log
    if code == NOT_YET_VALID and credible(utc_ms) is None:
        return f"waits for this machine's clock, which says {now}: until something sets it no certificate is valid"
    if code == NOT_YET_VALID:
        return f"its certificate is not valid yet, and this machine's clock says {now}: set the clock, if that is wrong"
    if code == EXPIRED:
        return f"its certificate has expired, this machine's clock says {now}: it must be renewed there"
    if code in (NOT_THIS_HOST, NOT_THIS_ADDRESS):
        return f"its certificate is for another name ({refusal.verify_message}): correct the url"
    if code in UNKNOWN_ISSUER:
        return f"nobody we trust has signed its certificate ({refusal.verify_message}): correct ca_file"
    return f"its certificate is not good: {refusal.verify_message}"


def pause_s(why: BaseException, otherwise_s: float, utc_ms: int | None) -> float:
    """How long to wait before the next attempt. utc_ms: of the gateway's clock, None while it is not credible."""
    return min(otherwise_s, UNDATED_AGAIN_S) if utc_ms is None and _refusal_behind(why) is not None else otherwise_s


def _refusal_behind(why: BaseException | None) -> ssl.SSLCertVerificationError | None:
    # Libraries wrap, with `from None`, too.
    seen: list[BaseException] = []
    while why is not None and why not in seen:
        if isinstance(why, ssl.SSLCertVerificationError):
            return why
        seen.append(why)
        why = why.__cause__ or why.__context__
    return None
