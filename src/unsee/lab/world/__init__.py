"""Drawn world of the lab: people, portraits, objects, phrases."""
