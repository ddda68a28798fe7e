"""What `prefrl text` does, one settings object a verb, and the curve of methods."""
