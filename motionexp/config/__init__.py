"""What a job is told: settings, their checks, and the ids of what comes out. Imports no torch."""
