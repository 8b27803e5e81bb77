"""Routes: each brings the buffer's reports to one platform, with lanes of its own."""
