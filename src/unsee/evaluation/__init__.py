"""Collection of responses, and their judging."""
