"""The user study: questionnaires from finished samples, and the tally of their answers."""
