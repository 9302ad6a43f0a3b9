"""The page on which one tries a reference, a method and a window: `python run.py ui`."""
