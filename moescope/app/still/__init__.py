"""Pages of the dashboard as files: drawn for nobody, and put on one page of HTML that needs no server."""
