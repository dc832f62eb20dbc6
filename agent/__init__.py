"""Who answers: identity, sessions, the loop, models, tools, and the gate in front of them."""
