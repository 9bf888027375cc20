"""Submissions: what a folder of someone else's figures must hold, and whether it holds it. Trusts nothing; no torch."""
