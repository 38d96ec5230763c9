"""Publish a trained model on the Hub, with its card."""
