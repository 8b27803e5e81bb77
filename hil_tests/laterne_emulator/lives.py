"""The lives of an emulated board: why one began, why it ended, and what comes next."""

from dataclasses import dataclass
from enum import Enum

from laterne_emulator import records


class Cause(Enum):
    """machine.reset_cause() of one life."""

    POWER_ON = records.PWRON_RESET
    HARD = records.HARD_RESET
    WATCHDOG = records.WDT_RESET
    SOFT = records.SOFT_RESET


class Ending(Enum):
    """Why a life ended."""

    RESET = "machine.reset() or the reset button"
    SOFT_RESET = "soft reset"
    WATCHDOG = "the watchdog bit"
    POWER_CUT = "power cut at a flash operation"
    POWER_OFF = "power off"
    BOOTLOADER = "machine.bootloader()"
    FLASH_MISUSE = "programmed a page that was not erased"
    FAILED = "the process failed"


NEXT_CAUSE = {
    Ending.RESET: Cause.HARD,
    Ending.SOFT_RESET: Cause.SOFT,
    Ending.WATCHDOG: Cause.WATCHDOG,
}  # after any other ending the board stays down


@dataclass(frozen=True)
class Life:
    """From one reset to the next."""

    cause: Cause
    ending: Ending


class BoardFailed(Exception):
    """The emulation itself broke: the message holds what the board printed last."""
