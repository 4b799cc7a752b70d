"""The small world of Problem 3: things that five artists drew, composed into scenes, in styles, with captions."""
