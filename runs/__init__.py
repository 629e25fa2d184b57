"""What a run is: its settings, the files that set them, and how a grid becomes runs."""
