"""The last configuration that could be used, for a start with a file that cannot.

Somebody makes a mistake in the configuration of a gateway far away. While it runs the mistake is refused; but after the
next power cut there would be no gateway, and nobody there. So each configuration that has come into force is kept in
the service's state directory, and a start with a bad file goes on with it, with the problems in the log and an alarm.
It is kept as it stood in the file, and its paths are relative to that file, as they were.

Only for a service (STATE_DIRECTORY, systemd.exec(5)): who runs the gateway by hand wants to see the mistake at once.
Who asks how the installed service is (status, diag) is told of the mistake, and then what that service says.
"""

import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Self

from laterne_gateway import install
from laterne_gateway.config import Config, ConfigError, parse, read

log = logging.getLogger("laterne")

FILE_NAME = "gateway.toml.good"


class Configuration:
    """file: the one that people write. directory: where the last good one is kept; None: nowhere.

    log_level: instead of the one in the file. problems: those of the file, when start() has returned the last good
    one; else [].
    """

    def __init__(self, file: Path, directory: Path | None, log_level: str | None = None) -> None:
        self._file = file
        self._log_level = log_level
        self._good = None if directory is None else directory / FILE_NAME
        self._raw: bytes | None = None  # what load() has taken
        self.problems: list[str] = []

    @classmethod
    def found(cls, file: Path, log_level: str | None, environment: Mapping[str, str] = os.environ) -> Self:
        named = environment.get("STATE_DIRECTORY", "").partition(":")[0]
        return cls(file, Path(named) if named else None, log_level)

    @classmethod
    def of_the_service(cls, file: Path, log_level: str | None) -> Self:
        """For whoever looks at what runs."""
        is_installed = file.absolute() == Path("/") / install.CONFIGURATION
        return cls(file, Path("/") / install.STATE if is_installed else None, log_level)

    def start(self) -> Config:
        """What the file says, else the last good one. Raises ConfigError: there is none."""
        try:
            return self.load()
        except ConfigError as why:
            if self._good is None:
                raise
            try:
                config = self._parsed(read(self._good))
            except ConfigError:  # there is none, or of a former version of ours, or the card has changed it
                raise why from None
            self.problems = why.problems
            return config

    def load(self) -> Config:
        """What the file says. Raises ConfigError."""
        raw = read(self._file)
        config = self._parsed(raw)
        self._raw, self.problems = raw, []
        return config

    def _parsed(self, raw: bytes) -> Config:
        config = parse(self._file, raw)
        return config if self._log_level is None else replace(config, log_level=self._log_level)

    def keep(self) -> None:
        """What load() has returned is in force: the next start may need it. Written only when it is another one."""
        if self._good is None or self._raw is None:
            return
        try:
            if self._good.exists() and self._good.read_bytes() == self._raw:
                return
            new = self._good.with_name(self._good.name + ".new")
            with open(new, "wb") as file:  # whole or not at all, also after a power cut
                file.write(self._raw)
                file.flush()
                os.fsync(file.fileno())
            new.replace(self._good)
            folder = os.open(self._good.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as why:
            log.warning("configuration: not kept for a start with a bad file (%s); it is in force", why)
