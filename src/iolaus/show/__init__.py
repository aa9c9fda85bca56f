"""One run, shown to a person: progress, tables, curves, trackers."""
