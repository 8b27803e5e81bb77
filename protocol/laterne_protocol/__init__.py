"""The bytes of laterne: one source for CPython and MicroPython.

Everything here is pure: bytes in, values out. No port is read, no clock asked, no random number drawn, nothing
logged; ciphers, signatures, clock and randomness are passed in. protocol/README.md is the specification.
"""
