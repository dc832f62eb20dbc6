"""How finn is: facts that the other floors hold, judged."""
