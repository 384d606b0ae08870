"""State and plumbing that every process shares."""
