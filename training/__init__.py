"""Signed reports to dataset, QLoRA, evaluation and gate."""
