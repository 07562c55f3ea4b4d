"""What a run leaves in its folder and shows on the way. Nothing here knows of images or of other processes."""
