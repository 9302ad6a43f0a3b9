"""Rows, and what is made of rows alone: intervals, comparisons, tables. Imports no torch."""
