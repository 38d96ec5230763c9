"""Errors that a user can fix. Each message says what was found, what was expected and what to do."""


class InputError(ValueError):
    """Error in something that the user gave. The commands print it as one line."""


class DataError(InputError):
    """Error in a data set or one of its files: a table, a manifest, an archive, prepared or translated data."""


class AudioError(InputError):
    """Error in a recording whose sound cannot be used, or not all of it."""


class UnreadableError(AudioError):
    """Error of the system in reading a recording. Nothing is known of its content."""


class RecipeError(InputError):
    """Error in a field of a recipe, or in the output folder of a run."""


class RetrievalError(InputError):
    """Error in an index, in a query to it, or in the model that embeds both."""


class MissingIndexError(RetrievalError):
    """Error of a path at which no index exists."""


class PublishError(InputError):
    """Error in what is to be published, or in the access to the Hub."""


def one_line(message: object) -> str:
    """Join the lines of a message, such as that of a library's error."""
    return " ".join(str(message).split())
