"""Tests of ``lars``: ``pytest --pyargs lars``. Those that need more than torch and pytest are skipped without it."""
