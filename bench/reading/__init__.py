"""What `bench/ingest.py` is made of: the hospital that is read, the ways of reading it, and their comparison."""
