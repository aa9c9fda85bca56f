"""`iolaus show`: a run before it trains: its images, model, memory and learning rates; a test for the learning rate."""
