"""Training of the retrieval model: arguments, schedule, trainer."""
