"""Phrase data of the report generator: one file of seen wordings per body system, one of unseen wordings each."""
