"""Which addresses a name may mean."""
