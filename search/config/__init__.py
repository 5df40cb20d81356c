"""The composed configuration, checked and turned into the objects of a study."""
