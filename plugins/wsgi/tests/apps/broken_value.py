"""An application whose import ends in a ValueError."""

int("not a number")
