"""How the bundled checkpoints are made, from nothing, by one command each."""
