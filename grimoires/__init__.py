"""The template of the agent's own files: copied on a clean start, never over a file that exists."""
