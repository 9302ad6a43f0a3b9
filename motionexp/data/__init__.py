"""References and their edits, behind one reader interface: the bundled world, TGVE, DAVIS, the user's own."""
