"""Institution databases to reports."""
