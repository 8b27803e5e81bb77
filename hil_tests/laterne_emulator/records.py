"""The numbers on the control channel between a board's process and its supervisor.

The channel is a SEQPACKET socket pair: one record is one packet, so a Ctrl-C in the middle of a request
can never leave half a record behind. A request is

    operation u8, argument u8, sequence u8, zero u8, value u32, payload 0..256 bytes

and a reply is `errno u8, flags u8, sequence u8, zero u8, value u32, payload`, little endian, always filled up to
REPLY_BYTES: MicroPython's readinto waits for a whole buffer. Requests marked "no reply" are sent and
forgotten. This file runs on CPython and on MicroPython: plain numbers only.
"""

HEADER = "<BBBxI"
HEADER_BYTES = 8
PAYLOAD_BYTES = 256  # the longest I2C transfer, and one page of flash
REPLY_BYTES = 264

HELLO = 1  # reply value: bytes of payload; payload: BOOT, then the path of the flash image
READY = 2  # no reply; argument 1: the flash was formatted; value: bytes of heap the emulator keeps
END = 3  # no reply, ever: the supervisor kills the process; argument: one of the END_... below
PIN_MODE = 4  # no reply; argument: pin; value: mode | pull << 8
PIN_WRITE = 5  # no reply; argument: pin; value: 0 or 1
PIN_READ = 6  # argument: pin; reply value: 0 or 1
ADC_READ = 7  # argument: pin; reply value: 0..65535
I2C_TRANSFER = 8  # argument: bus; value: address | bytes to read << 16; payload: bytes to write
I2C_SCAN = 9  # argument: bus; reply value: how many answered; payload: their addresses
UART_INIT = 10  # no reply; argument: UART; value: baud
UART_ANY = 11  # argument: UART; reply value: bytes that wait to be read
WATCHDOG_START = 12  # no reply; value: milliseconds
WATCHDOG_FEED = 13  # no reply
FLASH_PROGRAM = 14  # value: address of the page; reply: see FLASH_HOLD, FLASH_SKIP; value: microseconds busy
FLASH_ERASE = 15  # value: number of the block; reply as for FLASH_PROGRAM
FLASH_PAGE = 16  # no reply, ever: the payload of a page program that was answered with FLASH_HOLD
FLASH_MISUSE = 17  # value: address of a page that is programmed twice; reply errno 0: do it all the same

# Reasons in END
END_RESET = 1  # machine.reset()
END_SOFT = 2  # machine.soft_reset(), SystemExit
END_BOOTLOADER = 3  # machine.bootloader(): the board stays down until it is powered on again

# Bits of a reply to FLASH_PROGRAM and FLASH_ERASE, in its second byte
FLASH_HOLD = 1  # the power goes now: send the page (a program only), do nothing, wait for the end
FLASH_SKIP = 2  # report success and do nothing

# reset cause u8, raw REPL u8, blocks u16, ticks at power-on in ms u32, clock error in ppm i32,
# UTC seconds of the board's clock at power-on u32, UART fd i16, UART paced u8, what is wrong with one block of the
# flash u8 (below; 0: nothing), unique id 8 bytes, bytes of a page, that block u16, the first read of it that fails u16
BOOT = "<BBHIiIhBB8sHHH"
BOOT_BYTES = 34

# What is wrong with one block; bad_flash.py does it
READ_FAILS_ONCE = 1
READ_FAILS = 2
PROGRAM_DROPPED = 3
PROGRAM_WEAK = 4
ERASE_WEAK = 5
WRITE_FAILS = 6

# Two bytes of memory that both have: where the processor is, and whether a Ctrl-C that came WITHIN waits for the end.
WHERE = 0
WANTED = 1
STARTING = 0  # before READY
OUTSIDE = 1  # of the flash driver
EDGE = 2  # it has just begun or is about to end: for a Ctrl-C ask again
WITHIN = 3

# machine.reset_cause() of rp2 and esp32 differ; these are what the emulated `machine` calls them.
PWRON_RESET = 1
HARD_RESET = 2
WDT_RESET = 3
SOFT_RESET = 5
