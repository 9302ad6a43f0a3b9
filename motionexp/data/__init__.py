"""References and their edits: the bundled world and a user's own clip, behind one reader interface."""
