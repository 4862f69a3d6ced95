"""Checks a served model on labelled photos, and finds mistakes in the spec.

`labelled` finds the photos, `answers` sends them, `tally` counts, `local` runs the same models here with
`alternatives` to their preprocessing, `advice` describes one that fits better, `text` and `report` show the outcome.
"""
