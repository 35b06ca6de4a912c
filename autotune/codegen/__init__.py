"""From a nest to text to machine code, and how machine code is called. Knows no operation, no search and no store."""
