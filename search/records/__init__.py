"""The records that a study keeps of its trials, and the names under which they are kept."""
