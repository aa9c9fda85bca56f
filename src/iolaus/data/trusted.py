"""Which of torchvision's datasets a configuration may not name."""

# LSUN unpickles a cache file of the current folder that nobody has checked; CIFAR checks the MD5 of its pickles first.
# Cityscapes extracts archives that it finds, Kinetics and Middlebury move files to names that a list gives.
UNCHECKED_DATASETS = frozenset({"LSUN", "LSUNClass", "Cityscapes", "Kinetics", "Middlebury2014Stereo"})
