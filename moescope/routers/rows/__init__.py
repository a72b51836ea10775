"""What the rows and places of a record are: buffers, pools, subsets of a stream, routers inside one another."""
