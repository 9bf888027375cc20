"""How figures are shown: data frames, tables, export formats."""
