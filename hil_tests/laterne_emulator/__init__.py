"""Emulated sensor boards: the real firmware in a real MicroPython, with everything around it made to fail on demand.

Part of the wheel under the extra `emulator`. hil_tests/README.md says how to use it in tests of your own.
"""
