"""Evaluate retrieval: the metrics, their chance level, and plots of both."""
