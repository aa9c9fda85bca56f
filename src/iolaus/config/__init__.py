"""From a composed configuration to objects: checked first, then built."""
