"""The one error that wrong input raises. Imports nothing of this package."""


class InputError(ValueError):
    """The user's input is wrong. The message alone is shown: it names the input and what would be right."""
