"""What keeps a check from being made."""


class CheckError(Exception):
    """Nothing can be checked; the message is a sentence for the user."""
