"""The hardware: the only module that knows the pins of this model (/pins.mpy, from firmware/boards/).

Everything else is given ready objects, so that it runs under a test without a board, and this module can go.
"""

import machine
import pins
from machine import ADC, I2C, UART, WDT, Pin
from micropython import const

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

MODEL = pins.MODEL
TIER = pins.TIER
BAUD = 115200
WATCHDOG_MS = 8000  # RP2040 counts to 8,388 at most
_I2C_HZ = const(100000)  # sensors hang on half a metre of cable in a lamp post
_UART_BUFFER_BYTES = const(1200)  # a whole frame each way: the loop may be busy with flash for 50 ms


def service_switch() -> Pin:
    """The pin that the technician's switch connects to ground: 0 while it is closed."""
    return Pin(pins.SERVICE_PIN, Pin.IN, Pin.PULL_UP)


def hardware_id() -> bytes:
    """The chip's own number, 1..16 bytes."""
    return bytes(machine.unique_id())[:16]


def started_by() -> str:
    """Why the board started, for the console. rp2 calls machine.reset() a watchdog reset, too."""
    cause = machine.reset_cause()
    if cause == machine.PWRON_RESET:
        return "power-on"
    if cause == machine.WDT_RESET:
        return "watchdog"
    return "reset"


def i2c() -> I2C:
    return I2C(pins.I2C_ID, scl=Pin(pins.I2C_SCL), sda=Pin(pins.I2C_SDA), freq=_I2C_HZ)


def uart() -> UART:
    # timeout=0: a read never waits and never gives half a byte (facts 4: rp2's timeouts are reported as data).
    return UART(
        pins.UART_ID,
        BAUD,
        tx=Pin(pins.UART_TX),
        rx=Pin(pins.UART_RX),
        txbuf=_UART_BUFFER_BYTES,
        rxbuf=_UART_BUFFER_BYTES,
        timeout=0,
    )


def driver_enable() -> "Pin | None":
    """The pin that turns an RS-485 driver on, off at first; None on a board without one."""
    return None if pins.UART_DE is None else Pin(pins.UART_DE, Pin.OUT, value=0)


def led() -> Pin:
    return Pin(pins.LED_PIN, Pin.OUT, value=0)


def noise() -> "Callable[[], int]":
    """A function that samples the open analogue input: 16 bits, of which the lowest are noise."""
    return ADC(Pin(pins.ADC_PIN)).read_u16


def watchdog() -> WDT:
    """Starts the watchdog. It cannot be stopped: feed() it, or the board starts again."""
    return WDT(timeout=WATCHDOG_MS)
