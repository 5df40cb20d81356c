"""Code that the runtimes share whose engines are files: exporting, converting, opening and weighing them."""
