"""One table of the configuration: settings are taken out one by one, and what is wrong is said with file and line.

A problem ends nothing: reading goes on with a value that will do, so that all problems are reported at once.
"""

import os
from pathlib import Path

from laterne_gateway.toml_lines import line_of
from laterne_protocol import fields, frame
from laterne_protocol.errors import ObjectError

SECRETS = "credentials"  # a folder beside the configuration, readable by root alone


class Source:
    """The file that is read. text: of it. problems: a sentence each, with file, line, setting and remedy."""

    def __init__(self, file: Path, text: str) -> None:
        self.file = file.absolute()
        self.text = text
        self.problems: list[str] = []


class Table:
    """name: of the table; index: which of the [[name]]s, None for [name]. What is left over at the end is unknown."""

    def __init__(self, source: Source, name: str, index: int | None, values: dict[str, object]) -> None:
        self._source = source
        self._name = name
        self._index = index
        self._left = dict(values)
        self.heading = f"[[{name}]]" if index is not None else f"[{name}]"

    def problem(self, setting: str | None, sentence: str) -> None:
        line = line_of(self._source.text, self._name, self._index, setting)
        where = f"{self._source.file}:{line}" if line else f"{self._source.file}"
        what = self.heading if setting is None else f"{self.heading} {setting}"
        self._source.problems.append(f"{where}: {what}: {sentence}")

    def has(self, setting: str) -> bool:
        return setting in self._left

    def text(self, setting: str, remedy: str) -> str:
        """A required text; "" after a problem."""
        value = self._left.pop(setting, None)
        if value is None:
            self.problem(None, f'"{setting}" is missing: {remedy}')
        elif not isinstance(value, str) or not value:
            self.problem(setting, f"is not a text: {remedy}")
        elif any(ord(sign) < ord(" ") for sign in value):
            self.problem(setting, f"holds a control character: {remedy}")
        else:
            return value
        return ""

    def optional_text(self, setting: str, remedy: str) -> str | None:
        return self.text(setting, remedy) if setting in self._left else None

    def name(self, setting: str, remedy: str) -> str:
        """A text that is safe in topics and paths, as ids of boards are."""
        value = self.text(setting, remedy)
        if value:
            try:
                return fields.board_id(value, "it")
            except ObjectError as why:
                self.problem(setting, f'"{value[:40]}": {why}: {remedy}')
        return value

    def path(self, setting: str, remedy: str) -> Path:
        said = Path(self.text(setting, remedy))
        # What only root may read systemd hands to the service (the unit's LoadCredential=laterne:..., systemd.exec(5)).
        handed_over = os.environ.get("CREDENTIALS_DIRECTORY")
        if handed_over and len(said.parts) == 2 and said.parts[0] == SECRETS:
            return Path(handed_over) / f"laterne_{said.name}"
        return self._source.file.parent / said

    def optional_path(self, setting: str, remedy: str) -> Path | None:
        return self.path(setting, remedy) if setting in self._left else None

    def integer(self, setting: str, default: int, low: int, high: int) -> int:
        value = self._left.pop(setting, default)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            remedy = f"the default is {default}" if default >= low else "or leave it out"
            self.problem(setting, f"is not a whole number in {low}..{high}: {remedy}")
            return default
        return value

    def choice(self, setting: str, default: str, choices: tuple[str, ...]) -> str:
        """default "": it may not be left out; "" after a problem."""
        value = self._left.pop(setting, default)
        if value == "" and not default:
            self.problem(None, f'"{setting}" is missing: give one of {", ".join(choices)}')
        elif not isinstance(value, str) or value not in choices:
            remedy = f"the default is {default}" if default else "give one of them"
            self.problem(setting, f"is not one of {', '.join(choices)}: {remedy}")
            return default
        return value

    def addresses(self, setting: str) -> tuple[int, ...]:
        remedy = (
            f"list each board's address once, {frame.FIRST_BOARD}..{frame.LAST_BOARD}; leave it out on a line with one"
        )
        if setting not in self._left:
            return ()
        value = self._left.pop(setting)
        addresses: list[int] = []
        for item in value if isinstance(value, list) else ():
            if isinstance(item, bool) or not isinstance(item, int):
                break
            if frame.FIRST_BOARD <= item <= frame.LAST_BOARD and item not in addresses:
                addresses.append(item)
        if not isinstance(value, list) or not value or len(addresses) != len(value):
            self.problem(setting, f"is not a list of addresses: {remedy}")
        return tuple(addresses)

    def end(self, known: str) -> None:
        for setting in self._left:
            self.problem(setting, f"is not a setting: remove it, or correct its name ({known})")


class Absent(Table):
    """A table that is not there: said once, not once for each of its settings."""

    def problem(self, setting: str | None, sentence: str) -> None:
        return
