"""Records of runs in, tables, figures and a page out."""
