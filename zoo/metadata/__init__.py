"""What is known of whose an image is, such as age and sex: shown to a network, or predicted."""
