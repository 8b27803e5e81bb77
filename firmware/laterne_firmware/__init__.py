"""The firmware of a post board: takes readings, signs them in reports, answers the gateway (firmware/README.md)."""

RELEASE = "0.1.0"
