"""What is said about a model in numbers."""
