"""Publishing a trained model on the Hub: whether it may be, what goes there, and its card."""
