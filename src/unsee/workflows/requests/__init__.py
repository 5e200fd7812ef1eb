"""Deletion requests, from arrival to a signed receipt of what the model still discloses.

A project is a folder with a ledger (no private data), one folder per request (its name, pictures and rows, until purged),
one per batch that was unlearned, and the receipts.
"""
