"""Images on their way from disk to the device. ``kinds.open_data`` is the entry."""
