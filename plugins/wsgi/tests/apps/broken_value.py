"""An application whose import raises a ValueError."""

int("not a number")
