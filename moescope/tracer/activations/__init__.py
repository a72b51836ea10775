"""What a trace says of activations and weights, which it never keeps."""
