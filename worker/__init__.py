"""From the queue to a draft, and from a sign-off to a score."""
