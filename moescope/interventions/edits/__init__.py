"""What can be done to a router's decision: choose otherwise, run something else, add, replay."""
