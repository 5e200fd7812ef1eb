"""Drawn documents of the lab: archive, drawing, lessons."""
