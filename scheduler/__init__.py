"""What happens by itself: periodic tasks behind breakers, health, and the doctor."""
