"""What a person sees: report files, tables, sentences, the end of a study."""
