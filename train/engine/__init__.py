"""One step, one evaluation, and the order of both. Nothing here knows of files."""
