"""Modules for boards: MicroPython sources with short names, compiled (shortening.py says why)."""
