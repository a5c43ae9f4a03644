"""Components and neighbours that lie, or take what is not theirs: one file for each."""
