"""What importers share: a model's facts, payloads, rules, the way into a store."""
