"""The one exception for bad input."""


class UserError(ValueError):
    """Bad input, said in one sentence: what is wrong, where, and what to do. The tools print it and exit with status 2."""
