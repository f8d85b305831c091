"""Ready tasks, one YAML file each, with the reason of every choice as a comment."""
