"""Deletion requests, from their receipt to a signed statement of what the model still says.

A project is a folder with a ledger (no private data), one folder per request (its name, pictures and rows, until purged),
one per batch that was unlearned, and the receipts.
"""
