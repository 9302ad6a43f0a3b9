"""Figures of published rows."""
