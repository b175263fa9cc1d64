"""What is in a data set that would mislead a classifier or its evaluation: one module for each family of checks."""
