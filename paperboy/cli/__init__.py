"""The command ``paperboy``: what an operator does beside the engine. Standard output is for results, standard error for
progress and errors."""
