"""Pictures: opening them, folders and zips of them, and the way between uint8 and [−1, 1]."""
