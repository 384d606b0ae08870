"""Pretend hospitals and a report generator that knows its facts."""
