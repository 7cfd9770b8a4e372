"""From predictions to answers: fit, fuse, score, check."""
