"""The template of the agent's own files, copied into a data directory on a clean start and never over a file that exists."""
