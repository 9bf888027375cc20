"""Submissions: what a folder must hold, and whether it does. Nothing is trusted; only `audit` needs torch."""
