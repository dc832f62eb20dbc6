"""What people and programs meet: HTTP, WebSocket, the page, the command line, and the composition root."""
