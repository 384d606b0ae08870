"""A ward for measuring and breaking: real PostgreSQL, Valkey, HTTP door, clerk and Celery workers, around an engine that says what it is told."""
