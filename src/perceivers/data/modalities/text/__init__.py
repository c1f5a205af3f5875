"""Text as UTF-8 bytes."""
