"""Input and output of a job in object storage."""
