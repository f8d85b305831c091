"""Jobs: starting, watching, commanding and re-attaching to processes; torch-free."""
