"""Reports for people: files, tables, sentences, and the output at the end of a study."""
