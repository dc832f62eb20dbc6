"""HTTP, by subject: each file gives the list of its routes when it is handed what they need."""
