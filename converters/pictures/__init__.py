"""Pictures of what is annotated and predicted: colours, drawing, and what notebooks show."""
