"""What a router is, what one decision of it says, and what contracts read it with."""
