"""Routes: each brings the buffer's reports to one platform, with a cursor of its own."""
