"""The one error that a user's mistake raises."""


class RequestError(ValueError):
    """The request was wrong: its message names the value and the rule. Commands print it and exit with 2."""
