"""How a command gets at the broker and at keys: the options of a broker, read in one place."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from laterne_provisioning import keys, subscriber
from laterne_provisioning.options import PassphraseOption, PinOption

BrokerOption = Annotated[str, typer.Option("--broker", metavar="URL", help="mqtt://HOST:PORT or mqtts://HOST:PORT.")]
MaybeBrokerOption = Annotated[
    str | None, typer.Option("--broker", metavar="URL", help="mqtt://HOST:PORT or mqtts://HOST:PORT.")
]
TenantOption = Annotated[
    str | None, typer.Option("--tenant", help="Of that gateway. [default: as its status at the broker says]")
]
CaOption = Annotated[
    Path | None, typer.Option("--ca-file", metavar="FILE", help="Who may sign the broker's certificate.")
]
CertificateOption = Annotated[Path | None, typer.Option("--certificate", metavar="FILE", help="Our own certificate.")]
KeyOption = Annotated[Path | None, typer.Option("--key", metavar="FILE", help="Its key.")]
UserOption = Annotated[str | None, typer.Option("--user", help="For a broker that wants a name.")]
PasswordOption = Annotated[
    Path | None, typer.Option("--password-file", metavar="FILE", help="The password: first line.")
]


@dataclass(frozen=True)
class Access:
    """What a command may use: the broker, and the secrets of keys."""

    broker: subscriber.Broker
    secrets: keys.Secrets


def _access(
    broker: BrokerOption,
    ca_file: CaOption = None,
    certificate: CertificateOption = None,
    key: KeyOption = None,
    user: UserOption = None,
    password_file: PasswordOption = None,
    passphrase_file: PassphraseOption = None,
    pin_file: PinOption = None,
) -> Access:
    return Access(
        subscriber.broker_of(broker, subscriber.Credentials(ca_file, certificate, key, user, password_file)),
        keys.Secrets(passphrase_file, pin_file),
    )


def with_access(command: Callable[..., None]) -> Callable[..., None]:
    """The command with the options of _access() in place of its parameter `access`, which is made of them."""
    ours = dict(inspect.signature(_access).parameters)

    @functools.wraps(command)
    def called(**given: Any) -> None:
        command(access=_access(**{name: given.pop(name) for name in ours}), **given)

    return _typed(command, called, ours)


def with_access_or_none(command: Callable[..., None]) -> Callable[..., None]:
    """The same for a command that can do without a broker: `access` is None then, `secrets` are there all the same."""
    ours = dict(inspect.signature(_access).parameters)
    ours["broker"] = ours["broker"].replace(default=None, annotation=MaybeBrokerOption)

    @functools.wraps(command)
    def called(**given: Any) -> None:
        options = {name: given.pop(name) for name in ours}
        secrets = keys.Secrets(options["passphrase_file"], options["pin_file"])
        command(access=None if options["broker"] is None else _access(**options), secrets=secrets, **given)

    return _typed(command, called, ours)


def _typed(
    command: Callable[..., None], called: Callable[..., None], ours: dict[str, inspect.Parameter]
) -> Callable[..., None]:
    parameters: list[inspect.Parameter] = []
    for one in inspect.signature(command).parameters.values():
        if one.name != "secrets":
            parameters.extend(ours.values() if one.name == "access" else (one,))
    parameters = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in parameters]
    called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # what typer reads
    called.__annotations__ = {one.name: one.annotation for one in parameters}
    return called
