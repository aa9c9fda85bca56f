"""What must survive kill -9: the files of a run's folder, written whole or not at all, and locks."""
