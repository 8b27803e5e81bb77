"""The gateway agent: asks boards for their reports, checks and keeps them, brings them to the platform."""

VERSION = "0.1.0"
