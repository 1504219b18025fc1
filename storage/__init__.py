"""What is remembered: one SQLite database and a folder of models. Imports none of the other rooms."""
