"""The doors: HTTP API, page and what translates into core.requests."""
