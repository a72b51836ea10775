"""What the rows and places of a record are: buffers, pools, slots, subsets of a stream, numbers that are no experts."""
