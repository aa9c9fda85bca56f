"""Methods of training: one paper or rule a file."""
