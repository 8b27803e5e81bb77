# main.py of an emulated board in tests: one command a line on the UART, one line back.
import asyncio
import gc
import sys
import time

import machine
import micropython

i2c = machine.I2C(0, scl=machine.Pin(5), sda=machine.Pin(4))
uart = machine.UART(0, 115200)
led = machine.Pin(25, machine.Pin.OUT, value=0)
switch = machine.Pin(22, machine.Pin.IN, machine.Pin.PULL_UP)
adc = machine.ADC(machine.Pin(26))
word = bytearray(2)


def without_allocation():
    micropython.heap_lock()
    try:
        switch.value()
        led.value(1)
        adc.read_u16()
        uart.any()
        i2c.readfrom_mem_into(0x76, 0xD0, word)
    finally:
        micropython.heap_unlock()
    return f"{word[0]:02x}"


def answer(command, rest):
    if command == b"echo":
        return rest
    if command == b"ticks":
        return str(time.ticks_ms())
    if command == b"difference":
        return str(time.ticks_diff(int(rest), time.ticks_ms()))
    if command == b"cause":
        return str(machine.reset_cause())
    if command == b"switch":
        return str(switch.value())
    if command == b"led":
        led.value(int(rest))
        return "ok"
    if command == b"scan":
        return str(i2c.scan())
    if command == b"lock":
        return without_allocation()
    if command == b"free":
        gc.collect()
        return str(gc.mem_free())
    if command == b"save":
        with open("saved", "wb") as file:
            file.write(rest * 100)
        return "saved"
    if command == b"long":
        done, data = 0, bytes(int(rest))
        started = time.ticks_us()
        while done < len(data):
            done += uart.write(data[done:]) or 0
        still_sending = not uart.txdone()
        uart.flush()
        return f"{int(still_sending)} {time.ticks_diff(time.ticks_us(), started)}"
    if command == b"watch":
        machine.WDT(timeout=int(rest))
        return "watching"
    if command == b"reset":
        machine.reset()
    if command == b"soft":
        sys.exit()
    if command == b"hang":
        while True:
            pass
    return "?"


async def main():
    reader, writer = asyncio.StreamReader(uart), asyncio.StreamWriter(uart)
    print("ready")
    while True:
        command, _, rest = (await reader.readline()).strip().partition(b" ")
        reply = answer(command, rest)
        writer.write(reply if isinstance(reply, bytes) else reply.encode())
        writer.write(b"\n")
        await writer.drain()


asyncio.run(main())
