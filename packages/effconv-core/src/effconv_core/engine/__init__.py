"""The loops: search, comparison of finalists, training, evaluation."""
