"""What is wrong with somebody's clips."""

from models.errors import ModelError


class BadData(ModelError):
    """A file of the training data cannot be used: which one, why, and what to do next."""
