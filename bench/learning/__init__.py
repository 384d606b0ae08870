"""Parts of bench/training.py: what is trained on, and the trainers that are compared."""
