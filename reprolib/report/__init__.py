"""Tables, figures and verdicts from the records."""
