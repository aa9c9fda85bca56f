"""The machine of a run: its device, its memory, its GPUs, its compiler."""
