"""Methods that make a drafter fairer: training (weights × loss × sampling) or a fit; on token ids and tasks."""
