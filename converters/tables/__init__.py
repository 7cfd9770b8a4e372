"""Tables about images, patients and classes (CSV, TSV), and what their columns name."""
