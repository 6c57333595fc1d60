"""errors.py: the one base class of every mistake that a user can make and mend."""


class ForgemapError(Exception):
    """A user's mistake in one clear sentence: what was wrong, with which file, what to do.

    Commands print the sentence without a traceback and exit with code 2.
    """


class ImageError(ForgemapError):
    """A picture that cannot be read: missing, corrupt, too large, not an image."""


class ModelError(ForgemapError):
    """A model folder, checkpoint or configuration that cannot be used."""


class DataError(ForgemapError):
    """A data set, manifest or photo folder that is not what it should be."""
