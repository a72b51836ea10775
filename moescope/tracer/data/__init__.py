"""What a model is given: windows of examples, drawn and batched, with what is known of each; texts and media."""
