"""Problem 2: faces from noises by DDIM, from the data to the folder that is handed in."""
