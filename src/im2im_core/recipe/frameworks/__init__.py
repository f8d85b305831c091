"""Settings of the learning frameworks, one file each."""
