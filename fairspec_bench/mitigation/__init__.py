"""How a drafter is mended: a method is weights × loss × sampling, or a fit without training. Knows ids and tasks."""
