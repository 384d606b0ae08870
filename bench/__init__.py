"""Measurements, each side by side with what it is measured against; `make bench` runs them all."""
