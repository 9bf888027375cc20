"""Questions asked of everything below: whether the paper's claims hold, and what causes the gap between languages."""
