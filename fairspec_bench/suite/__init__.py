"""WHAT is asked: text and grading. Knows questions, languages and right answers; knows nothing of models or tokens."""
