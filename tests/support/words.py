"""The words of the closed vocabulary that `tests/conftest.py` writes."""

WORDS = ("a", "red", "blue", "ball", "moves", "left", "right")
