"""A run before it is paid for: its memory, its traffic, its time and what it costs."""
