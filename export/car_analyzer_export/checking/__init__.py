"""Whether a served model is right about photos whose answers are known, and if not, what the spec says wrongly.

`labelled` finds the photos, `asking` sends them, `tally` counts, `local` runs the same models here with other
`readings` of the photos, `advice` says in words what fits better, `text` and `report` show it all.
"""
