"""Uses of other libraries' internals, in one place.

One module per touch, whose docstring says what it is for and which plain way is behind it;
`tests/compat/test_compat.py` fails when the same kind of touch appears anywhere else. Loads nothing by itself.
"""
