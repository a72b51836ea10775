"""What pages ask the store; no page's layout."""
