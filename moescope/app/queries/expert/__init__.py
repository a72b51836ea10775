"""What the store knows of experts: tokens, labels, company, patches, cards, which prefers what."""
