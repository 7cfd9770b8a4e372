"""What looks wrong with a prediction or a submission."""
