"""What one does with a trained run: load it, evaluate it, ask it about pictures, export it."""
