"""Files and folders that other engines load: one file a format, one function ``write`` each."""
