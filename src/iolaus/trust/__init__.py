"""What a configuration may build, run and write: decided here, before Hydra does anything for it."""
