"""What is fused: prediction stores and submissions, opened together."""
