"""What a study keeps of its trials, and under which names."""
