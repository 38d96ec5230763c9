"""How good a retrieval system is: the retrieval metric, its chance level, and the pictures that show both."""
