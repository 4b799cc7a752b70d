"""The one error a user is meant to read, and the one line that checks for it."""


class UserError(ValueError):
    """Bad input, said in one clear sentence: what is wrong, where, and what to do.

    The command line prints the sentence and exits with code 2; in a notebook it reads as any ValueError does.

    >>> raise UserError("no such folder: 'hw2_data'; give the folder that holds digits/, or --data sample")
    Traceback (most recent call last):
    dlcv_diffusion.errors.UserError: no such folder: 'hw2_data'; give the folder that holds digits/, or --data sample
    """

    def __init__(self, sentence: str):
        # a file's name may hold line breaks, or bytes that are no text
        super().__init__("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in sentence))


def check(condition: object, sentence: str) -> None:
    """Raise `UserError(sentence)` unless the condition holds.

    >>> check(0.5 <= 1, "eta is 0.5; it must be between 0 and 1")
    """
    if not condition:
        raise UserError(sentence)
