"""What Python and MicroPython's ports bring along by name: a firmware's own may be called the same (short_names.py).

The ports' part is written down from their documentation, so that a release is the same wherever it is built.
"""

import array
import asyncio
import binascii
import gc
import hashlib
import io
import json
import os
import struct
import sys
import time
import types

_OF_PYTHON = frozenset(
    word
    for kind in (
        int,
        str,
        bytes,
        bytearray,
        memoryview,
        list,
        dict,
        set,
        tuple,
        OSError,
        StopIteration,
        array.array,
        io.BufferedRandom,
        io.TextIOWrapper,
        types.GeneratorType,
        types.CoroutineType,
        types.ModuleType,
        array,
        asyncio,
        asyncio.StreamReader,
        asyncio.StreamWriter,
        asyncio.Event,
        asyncio.Task,
        binascii,
        gc,
        hashlib,
        json,
        os,
        struct,
        sys,
        time,
    )
    for word in dir(kind)
)

# Of the modules machine, micropython, time, gc, os, vfs, cryptolib, deflate, rp2 and esp32, what firmware may ask for.
_OF_PORTS = (
    "ADC I2C PWM Pin RTC SPI Signal SoftI2C Timer UART WDT HARD_RESET PWRON_RESET SOFT_RESET WDT_RESET "
    "DEEPSLEEP_RESET IN OUT OPEN_DRAIN PULL_UP PULL_DOWN any bootloader deepsleep deinit disable_irq drive "
    "enable_irq feed flush freq idle init invert irq lightsleep mode off on pull read read_u16 read_uv readfrom "
    "readfrom_into readfrom_mem readfrom_mem_into readinto readline reset reset_cause scan sendbreak soft_reset "
    "toggle txdone unique_id value write writeto writeto_mem alloc_emergency_exception_buf const heap_lock "
    "heap_unlock kbd_intr mem_alloc mem_free mem_info opt_level qstr_info schedule stack_use threshold sleep_ms "
    "sleep_us ticks_add ticks_cpu ticks_diff ticks_ms ticks_us dupterm ilistdir mount statvfs sync umount uname "
    "urandom VfsFat VfsLfs2 mkfs readblocks writeblocks ioctl Flash Partition aes decrypt encrypt AUTO GZIP RAW "
    "ZLIB DeflateIO print_exception "
)
# Modules that are built into ports, or frozen there.
_MODULES = (
    "_asyncio _boot _onewire _thread aioespnow apa106 argparse array asyncio binascii bluetooth btree builtins cmath "
    "collections cryptolib deflate dht ds18x20 errno esp esp32 espnow flashbdev framebuf gc hashlib heapq inisetup io "
    "json lwip machine math micropython mip neopixel network ntptime onewire os platform random re requests rp2 select "
    "socket ssl struct sys termios time tls uasyncio uctypes umqtt upysh vfs webrepl websocket zlib"
)
MODULES = frozenset(_MODULES.split())
OF_BLOCK_DEVICES = frozenset({"readblocks", "writeblocks", "ioctl"})  # methods that a port's file system calls
OF_OTHERS = _OF_PYTHON | set(_OF_PORTS.split())
