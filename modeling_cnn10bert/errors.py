"""Errors that a user can put right: each message says what was found, what was expected and what to do."""


class InputError(ValueError):
    """Something given cannot be used as it is. The commands print it as one line."""


class DataError(InputError):
    """A data set, or a file of one: a table, a manifest, an archive, what was prepared or translated."""


class AudioError(InputError):
    """A recording of which no sound, or not all of it, can be used."""


class UnreadableError(AudioError):
    """A recording that the system does not read now: nothing is known of its content."""


class RecipeError(InputError):
    """A field of a recipe, or the output folder of a run."""


class RetrievalError(InputError):
    """An index, a question to it, or the model that embeds both."""


class MissingIndexError(RetrievalError):
    """There is no index at the place that was named."""


class PublishError(InputError):
    """What is to be published, or the access to the Hub."""


def one_line(message: object) -> str:
    """Join the lines of a message, such as that of a library's error."""
    return " ".join(str(message).split())
