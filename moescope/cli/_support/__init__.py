"""What commands share: options, sentences for errors, progress, reading a store."""
