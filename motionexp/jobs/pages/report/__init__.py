"""`python run.py report`: what was run as a folder of pages with its videos, plots and tables. No torch."""
