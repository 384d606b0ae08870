"""What radiology text means: pure functions, no database, clock, network or torch."""
