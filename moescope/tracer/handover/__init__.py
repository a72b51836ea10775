"""From records on the model's thread to rows on the writing thread."""
