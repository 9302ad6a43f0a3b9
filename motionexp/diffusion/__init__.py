"""Schedules, windows, the sampling loop and its inverse, and the interface of a backbone."""
