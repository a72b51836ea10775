"""`moescope listen`: a door before an engine's server that keeps the routing of what passes."""
