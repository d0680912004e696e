"""Records -> tables and figures. A pure function of the store's files: the same records give the same bytes."""
