"""Uses of other libraries' internals, in one place.

One module per touch. `docs/internals.md` lists what each is for, and the plain way behind it;
`tests/compat/test_compat.py` fails when the same kind of touch appears anywhere else. Loads nothing by itself.
"""
